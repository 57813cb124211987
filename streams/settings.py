"""Settings: the environment read once into frozen values. The only place that looks at it, and it decides nothing."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SourceError

from spendbrake.schemas.topics import PARTITIONS_EMBEDDED, PARTITIONS_KAFKA
from spendbrake.streams.secrets import MASK, kept_secret, masked_url
from spendbrake.streams.sections import Authz, Burn, Group, Http, Log, Metrics, Overshoot, Retention, Webhooks

ENV_PREFIX = "SPENDBRAKE_"
EMBEDDED = "embedded"
MIN_SECRET = 16
"""Shortest secret accepted, in characters."""
MIN_ADMIN_TOKEN = 32
SECRETS_DIR = f"{ENV_PREFIX}SECRETS_DIR"
"""Names a folder of files, one a setting: `spendbrake_secret`, `spendbrake_admin_token`. The environment wins."""
SECRETS = ("secret", "admin_token", "slack_signing_secret")
PORT_HINT = "its port is no number; in a password / ? # @ : are written %2F %3F %23 %40 %3A"
"""What stands where a port should is not quoted: it is the password then."""
SECTION_HINT = f"a section is set by its fields, as {ENV_PREFIX}HTTP__PORT"


class SettingsError(ValueError):
    """The environment does not describe a deployment; `problems` holds a line for each thing that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


PREFIX = r"^[a-zA-Z0-9._-]{0,100}$"
"""What a name of a topic may begin with."""


class Settings(BaseSettings):
    """A deployment as the environment describes it. `load()` makes it."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    broker: str = Field(
        f"{EMBEDDED}://", description="kafka://host:port[,host:port], or embedded:///folder; no folder = data_dir/log."
    )
    redis: str = Field(f"{EMBEDDED}://", description="redis://, rediss:// or unix:// URL; embedded:// starts a Valkey.")
    registry: str | None = Field(None, description="URL of a Confluent Schema Registry; absent = bundled schemas.")
    prefix: str = Field("", pattern=PREFIX, description="Put before every topic and group name.")
    partitions: int | None = Field(
        None, ge=1, le=10_000, description="Fixed when topics are created; absent = 32 on Kafka, 4 embedded."
    )
    secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        validate_default=True,
        description="Sign the service's own records; several by comma: the first signs, all verify.",
    )
    slack_signing_secret: SecretStr | None = Field(
        None, description="Of the Slack app: presses of buttons are taken at /v1/slack/actions where it is set."
    )
    admin_token: SecretStr | None = Field(
        None, min_length=MIN_ADMIN_TOKEN, description="An admin's API token besides those that were made."
    )
    data_dir: Path = Field(Path(".spendbrake"), description="Everything embedded lives here.")
    policy: Path | None = Field(None, description="Policy file that `up` applies at its start.")
    republish_s: float = Field(30, gt=0, le=600, description="Every standing decision is written again so often.")
    http: Http = Http()
    authz: Authz = Authz()
    metrics: Metrics = Metrics()
    burn: Burn = Burn()
    group: Group = Group()
    retention: Retention = Retention()
    overshoot: Overshoot = Overshoot()
    log: Log = Log()
    webhook: Webhooks = Webhooks()

    @field_validator("broker")
    @classmethod
    def _broker_url(cls, value: str) -> str:
        return _url_of(value, ("kafka", EMBEDDED))

    @field_validator("redis")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        return _url_of(value, ("redis", "rediss", "unix", EMBEDDED))

    @field_validator("registry")
    @classmethod
    def _registry_url(cls, value: str | None) -> str | None:
        return value if value is None else _url_of(value, ("http", "https"))

    @field_validator("secret", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("secret")
    @classmethod
    def _strong(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if not value and str(info.data.get("broker", EMBEDDED)).startswith("kafka:"):
            raise ValueError("a Kafka deployment needs a secret, the same in all its processes")
        if any(len(secret.get_secret_value()) < MIN_SECRET for secret in value):
            raise ValueError(f"a secret is at least {MIN_SECRET} characters long")
        return value

    @property
    def embedded(self) -> bool:
        """Whether the broker is the embedded one."""
        return self.broker.startswith(f"{EMBEDDED}:")

    @property
    def bootstrap_servers(self) -> str:
        """`host:port[,host:port]` of the Kafka cluster.

        Raises:
            ValueError: the broker is the embedded one.
        """
        if self.embedded:
            raise ValueError("the embedded broker has no bootstrap servers")
        return urlsplit(self.broker).netloc

    @property
    def log_dir(self) -> Path:
        """Folder of the embedded broker."""
        path = urlsplit(self.broker).path
        return Path(path) if self.embedded and path.strip("/") else self.data_dir / "log"

    @property
    def n_partitions(self) -> int:
        """Partitions to create topics with."""
        return self.partitions or (PARTITIONS_EMBEDDED if self.embedded else PARTITIONS_KAFKA)

    def signing_secrets(self) -> tuple[bytes, ...]:
        """Return the secrets of internal records, the signing one first.

        An embedded deployment without one makes its own and keeps it in `data_dir/secret` (mode 0600).
        """
        if self.secret:
            return tuple(secret.get_secret_value().encode() for secret in self.secret)
        return (kept_secret(self.data_dir / "secret"),)

    def shown(self) -> dict[str, Any]:
        """Return the settings in force for people and JSON, with secrets and passwords masked."""
        shown = self.model_dump(mode="json")
        shown["secret"] = [MASK] * len(self.secret)
        for name in ("admin_token", "slack_signing_secret"):
            shown[name] = None if shown[name] is None else MASK
        for name in ("broker", "redis", "registry"):
            shown[name] = None if shown[name] is None else masked_url(shown[name])
        return shown

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        """Return what `repr` shows: no password, no secret."""
        return self.shown().items()

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: with every problem, each naming its variable.
        """
        try:
            return cls(_secrets_dir=os.environ.get(SECRETS_DIR) or None)
        except ValidationError as error:
            raise SettingsError(tuple(_problem(dict(one)) for one in error.errors())) from None
        except SourceError as error:
            raise SettingsError((f"{error}: {SECTION_HINT}",)) from None


def unknown_names() -> tuple[str, ...]:
    """Return variables that begin like ours and mean nothing: a misspelt one is silently the default.

    Secrets of destinations are the policy file's to name (`..._SECRET`, `..._TOKEN`). Kubernetes adds variables
    for a service called spendbrake, so these are for a warning, not an error.
    """
    known = {SECRETS_DIR} | {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    return tuple(
        name
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX)
        and name.upper().split("__", 1)[0] not in known
        and not name.upper().endswith(("_SECRET", "_TOKEN"))
    )


def named_secret(name: str) -> SecretStr | None:
    """Return the secret of a destination by the variable that the policy file names; None when it is absent or empty.

    Where the environment has none it is read from the folder of secrets, as those of the settings are.
    """
    value = os.environ.get(name) or _filed(name)
    return SecretStr(value) if value else None


def _filed(name: str) -> str:
    folder = os.environ.get(SECRETS_DIR)
    if not folder or not name.isidentifier():
        return ""
    try:
        return (Path(folder) / name.lower()).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def _url_of(value: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(value)
    expected = " or ".join(f"{scheme}://" for scheme in schemes)
    if parts.scheme not in schemes or "://" not in value:
        raise ValueError(f"expected a URL with {expected}")
    if parts.scheme not in (EMBEDDED, "unix") and not parts.netloc.rpartition("@")[2]:
        raise ValueError("names no host")
    for server in parts.netloc.rpartition("@")[2].split(","):
        _, colon, port = server.rpartition(":")
        if colon and not server.endswith("]") and not (port.isascii() and port.isdigit()):
            raise ValueError(PORT_HINT)
    if parts.scheme == EMBEDDED and parts.netloc:
        raise ValueError(f"a folder has three slashes: {EMBEDDED}:///{parts.netloc}{parts.path}")
    return value


def _problem(error: Mapping[str, Any]) -> str:
    """Return one line for a person; a value that may be secret is not quoted."""
    place = [str(part) for part in error["loc"]]
    message = SECTION_HINT if error["type"] == "model_type" else str(error["msg"]).removeprefix("Value error, ")
    problem = f"{ENV_PREFIX}{'__'.join(place).upper()}: {message}"
    value = error["input"]
    secret = place[0] in SECRETS or message == PORT_HINT
    return problem if secret or not isinstance(value, str) else f"{problem}, got {masked_url(value)!r}"
