"""UsageEvent: one billed call. It says what ran and how much; never what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from spendbrake.schemas.money import NanoUsd

EventKind: TypeAlias = Literal["final", "estimate", "correction"]

MAX_TOKENS = 1_000_000_000
"""Largest token count believed; past it the record is refused as absurd."""
MAX_NAME = 256
"""Longest identifier (request id, key, team, model ...), in characters."""
UNTAGGED = "untagged"
"""The team of a call that nobody owns; a node of the tree with a cap of its own."""

OPERATIONS = frozenset(
    {
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        "create_agent",
        "invoke_agent",
        "execute_tool",
        "fine_tune",
        "file_upload",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One billed call.

    `source` and `request_id` together are the dedupe key, as CloudEvents has it. `model` is the one that ran
    and is billed; `requested_model` what the caller asked for. `input_tokens` is the total: cached parts are
    inside it. `output_tokens` includes reasoning.

    Attributes:
        time: Event time, epoch seconds UTC.
        operation: An OpenTelemetry `gen_ai.operation.name` value, or `fine_tune`, `file_upload`.
        cost: As billed by the producer, nano-USD (`cost_usd` on the wire); None lets the price book decide.
        units: Billed quantity that is not tokens, in `unit` (requests, images, hours).
        replaces: For a correction: the original event as it was sent.
    """

    request_id: str
    time: float
    api_key_id: str
    provider: str
    model: str
    source: str = "default"
    requested_model: str | None = None
    operation: str = "chat"
    team: str | None = None
    project: str | None = None
    environment: str | None = None
    session_id: str | None = None
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    units: float | None = None
    unit: str | None = None
    cost: NanoUsd | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    trace_id: str | None = None
    latency_ms: int | None = None
    error_code: str | None = None
    kind: EventKind = "final"
    replaces: "UsageEvent | None" = None
