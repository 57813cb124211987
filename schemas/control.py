"""Control messages: versions of policy and owners, and what is fixed about topics. Read whole by every worker."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

ControlKind: TypeAlias = Literal["policy", "owners", "topic", "token", "silence", "acknowledgement", "store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One policy file in force from `valid_from` (the log's clock) on; key `policy/<version>`.

    Attributes:
        digest: sha256 of the canonical JSON, hex.
        document: The policy file as JSON-ready data (schemas/policy.py reads it).
    """

    version: int
    valid_from: float
    published_at: float
    digest: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns an API key. `node` is the deepest node it belongs to, if the tree has one."""

    key: str
    team: str
    project: str | None = None
    environment: str | None = None
    node: str | None = None
    cost_center: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnersVersion:
    """A set of key owners, looked up by EVENT time; key `owners/<version>`. Later versions win key by key."""

    version: int
    valid_from: float
    published_at: float
    owners: tuple[Owner, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRegistration:
    """What is fixed for life about a topic; key `topic/<name>`. A new topic id is a new epoch."""

    name: str
    topic_id: str
    epoch: int
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """One API token as it is kept; key `token/<id>`. The token itself is in nobody's hands but its holder's.

    Attributes:
        roles: What its holder may do (streams/api/access/tokens.py lists them).
        salt: Hex.
        digest: HMAC-SHA256 of the token's secret part under the salt, hex.
        created_by: Who made it: `cli:<user>`, or `token:<id>`.
        expires_at: Epoch seconds UTC from which on it is refused; None: never.
    """

    id: str
    name: str
    roles: tuple[str, ...]
    salt: str
    digest: str
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None
    revoked_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts that nobody is told of for a while; key `silence/<id>`. Ending one is moving its end.

    Attributes:
        matchers: As in Alertmanager: `team="search"`, `node=~"key-.*"`; all must hold.
        starts_at: Epoch seconds UTC; `ends_at` likewise.
        created_by: `cli:<user>`, or `token:<id>`.
    """

    id: str
    matchers: tuple[str, ...]
    starts_at: float
    ends_at: float
    created_at: float
    created_by: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Somebody has taken an alert on: no reminders, no escalation; key `acknowledgement/<trouble>`.

    Attributes:
        trouble: What it is about, the same at every destination (actions/delivery/alert.py: trouble_key).
        action: Id of the notification that was acknowledged.
    """

    trouble: str
    action: str
    at: float
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSince:
    """The Redis of the gateways was found empty: whoever owns what stands in it writes it again; key `store`.

    Attributes:
        since: When that was, epoch seconds UTC.
    """

    since: float


ControlMessage: TypeAlias = (
    PolicyVersion | OwnersVersion | TopicRegistration | AccessToken | Silence | Acknowledgement | StoreSince
)
