"""Commands of people, and the headers of all records that the service writes into its own logs, each signed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spendbrake.schemas.money import NanoUsd

InternalKind: TypeAlias = Literal["tick", "forward", "command", "delta", "delta_unplaced", "rollup"]
INTERNAL_KINDS: frozenset[str] = frozenset({"tick", "forward", "command", "delta", "delta_unplaced", "rollup"})

KIND_HEADER = "sb-kind"
SIGNATURE_HEADER = "sb-signature"
"""HMAC-SHA256 over kind, topic, partition-independent key and value; see schemas/wire/envelope.py."""
ORIGIN_HEADER = "sb-origin"
"""`topic/partition/offset` of the record this one was made from."""
REDRIVEN_HEADER = "sb-redriven"
"""On an action that somebody has sent again: what has failed is tried once more."""
GATHERED_HEADER = "sb-gathered"
"""On a notification that was sent on to the partition at which its group is told; its `sb-origin` is where it was."""
GATHERED_NEWS, GATHERED_ESCALATION = b"news", b"escalation"
"""What it is there: news for its own destination, or for those that hear of what nobody acknowledges."""

Role: TypeAlias = Literal["operator", "finance", "engineering", "admin"]
Order: TypeAlias = Literal["request", "approve", "deny", "grant", "withdraw", "exempt", "feedback"]
ORDERS: frozenset[str] = frozenset({"request", "approve", "deny", "grant", "withdraw", "exempt", "feedback"})
Opinion: TypeAlias = Literal["real", "false_alarm"]
OPINIONS: tuple[Opinion, ...] = ("real", "false_alarm")
"""What somebody says of an incident: it was one, or nothing was wrong."""
APPROVERS: frozenset[str] = frozenset({"finance", "engineering"})
"""A request is granted once one of each has approved it, neither of them the requester."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who said yes, and as what."""

    by: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What somebody wants done to a node: a record in the log that owns it, applied once by its id.

    `request`, `approve` and `deny` go to the log of the node whose reserve pays; that log writes the `grant`, or the
    `exempt` of a policy, into the log of `node`. `withdraw` ends either before its time. `feedback` goes to the log of
    the team that a finding is about.

    Attributes:
        node: Whose limits change.
        home: Its team, whose log it is; empty for a node above the home level.
        by: Who asks or decides: a person's name, or an automation's.
        role: In which role.
        issued_at: Wall clock at which it was issued, epoch seconds UTC: for people, never for decisions.
        request: Id of the request that is decided, granted or withdrawn; a request's own id is `id`.
        amount: Of a top-up, nano-USD; 0 for an exception from a policy.
        policy: Name of the policy that an exception is from; empty for a top-up.
        expires_at: Epoch seconds UTC at which the grant or the exception ends; a top-up ends with its month, too.
        reason: In the requester's words, for the audit.
        approvals: Of a grant or an exception: who approved.
        finding: Of feedback: the finding that somebody has seen; `incident` and `detector` are its own.
        opinion: Of feedback: `real` or `false_alarm`; the latest word on an incident holds.
    """

    id: str
    kind: Order
    node: str
    by: str
    role: str
    issued_at: float
    home: str = ""
    request: str = ""
    amount: NanoUsd = 0
    policy: str = ""
    expires_at: float = 0.0
    reason: str = ""
    approvals: tuple[Approval, ...] = ()
    finding: str = ""
    incident: str = ""
    detector: str = ""
    opinion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """By how much a price fix moves what was spent under one combination of names: a record in the log of the team.

    It is applied once by its id, to the minutes that the calls were made in; calls and tokens stay as they are. In a
    record of the kind `delta_unplaced` it moves what has no place in time, and its minutes are those that it came in.

    Attributes:
        id: Of version, names, and what it says: the same fix worked out again has the same.
        version: Of the policy whose prices hold from here on for these minutes.
        team: Node id of the home; the key of the record, too.
        project: Like `key`, `environment`, `provider` and `model` as the calls were counted; empty = none.
        minutes: nano-USD to add by epoch minute; may be negative.
        by: Who asked for the price fix.
    """

    id: str
    version: int
    team: str
    key: str
    provider: str
    model: str
    minutes: Mapping[int, NanoUsd]
    project: str = ""
    environment: str = ""
    by: str = ""
