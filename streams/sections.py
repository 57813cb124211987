"""Sections of the settings: what each part of a deployment may be told. `settings.py` reads them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationInfo, field_validator

from spendbrake.schemas.topics import DAY_S


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


class Section(BaseModel):
    """A group of settings; `SPENDBRAKE_HTTP__PORT` is `port` of `http`. A name it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(Section):
    """Where the API listens."""

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port of the API; 0 takes a free one.")
    ingest_events_per_s: float = Field(50_000, gt=0, description="Events a second that one API token may send.")


class Authz(Section):
    """Envoy's ext_authz over gRPC; over HTTP it is part of the API. It has no TLS of its own."""

    host: str = Field("127.0.0.1", description="Address that ext_authz over gRPC listens on.")
    port: int | None = Field(None, ge=0, le=65_535, description="Its port; absent = not served, 0 takes a free one.")


class Metrics(Section):
    """Where every worker answers /metrics and /healthz."""

    host: str = Field("127.0.0.1", description="Address that /metrics and /healthz listen on.")
    port: int | None = Field(None, ge=0, le=65_535, description="Their port; absent = not served, 0 takes a free one.")


class Burn(Section):
    """The engine's workers."""

    chunk_max: int = Field(4_000, ge=1, le=8_192, description="Most records a step takes at once.")
    snapshot_interval_s: float = Field(10, gt=0, le=300, description="Seconds over which every row is written once.")
    dedupe_blocks: Annotated[int, AfterValidator(_power_of_two)] = Field(
        256, ge=4, le=65_536, description="Blocks of 4,096 offsets a partition remembers; 24 bytes an offset."
    )
    max_pending_offsets: int = Field(4_000_000, ge=1, description="Unacknowledged offsets at which reading pauses.")
    max_pending_s: float = Field(60, gt=0, le=3_600, description="Age of unacknowledged offsets at which it pauses.")
    control_silence_s: float = Field(
        30, gt=0, le=600, description="Without a read of control.v1 for so long a worker pauses."
    )


class Group(Section):
    """Membership in Kafka consumer groups."""

    session_timeout_s: float = Field(10, ge=6, le=300, description="Silence after which a worker counts as dead.")
    heartbeat_interval_s: float = Field(3, gt=0, le=100, description="At most a third of the session timeout.")

    @field_validator("heartbeat_interval_s")
    @classmethod
    def _thrice_a_session(cls, value: float, info: ValidationInfo) -> float:
        session_s = info.data.get("session_timeout_s", value * 3)
        if value * 3 > session_s:
            raise ValueError(f"must be at most a third of the session timeout of {session_s:g} s")
        return value


class Retention(Section):
    """How long logs are kept."""

    usage_s: float = Field(
        69 * DAY_S, ge=DAY_S, description="usage.v1; two months and a week, as far as a price fix reaches back."
    )


class Overshoot(Section):
    """What the bound on overshoot is computed from."""

    in_flight: int = Field(100, ge=0, description="Calls of one node that may be under way at once without a lease.")
    max_call_usd: float = Field(1.0, ge=0, le=1e6, description="The most that one of them costs, USD.")


class Log(Section):
    """What is logged, and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["console", "json"] = "console"


class Webhooks(Section):
    """Where webhooks may go, and when they are tried again."""

    allowed: tuple[IPvAnyNetwork, ...] = Field(
        (), description='Networks inside that webhooks may reach, a JSON list: ["10.1.0.0/16"]; else public ones only.'
    )
    retries: int = Field(
        16, ge=0, le=60, description="Tries after the first, by default over five hours; then it is a dead letter."
    )
    first_retry_s: float = Field(30, gt=0, le=3_600, description="Pause before the first of them; it doubles.")
    longest_retry_s: float = Field(1_800, gt=0, le=86_400, description="Longest pause.")
