"""Decision: what a gateway must do with a node's calls, absolute per (node, scope, policy)."""

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["allow", "throttle", "downgrade", "queue", "approve", "block"]

VERDICTS: tuple[Verdict, ...] = ("allow", "throttle", "downgrade", "queue", "approve", "block")
"""From the mildest to the strictest; a reader takes the strictest over the ancestors, and an unknown one as block."""
STATUS: dict[str, int] = {"allow": 200, "throttle": 429, "downgrade": 200, "queue": 429, "approve": 403, "block": 403}

OnUnavailable: TypeAlias = Literal["open", "closed", "last_decision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which calls of the node a decision is about; None means all of them."""

    environment: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None

    def text(self) -> str:
        """Canonical form: part of ids and of the decision's key in Redis.

        Examples:
            >>> Scope().text(), Scope(environment=("dev", "staging")).text()
            ('*', 'environment=dev,staging')
        """
        parts = [
            f"{name}={','.join(sorted(values))}"
            for name, values in (("environment", self.environment), ("keys", self.keys), ("models", self.models))
            if values is not None
        ]
        return ";".join(parts) or "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Place in a log: later stamps win. `epoch` numbers the topic's incarnations."""

    epoch: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A standing decision.

    Attributes:
        stamp: Where in the owning log it was made; only a later one overwrites it.
        partition: The owning log's partition, whose republish mark vouches for it.
        code: Machine code, such as `budget_exceeded` or `rate_limited`.
        expires_at: Epoch seconds UTC after which a reader ignores it; the reader checks this itself.
        reset_at: When the budget's period ends, for blocks by budget.
        max_rps: Calls a second under `throttle`; a token bucket of `burst` calls.
        model: The model to use under `downgrade`.
        percent: Share of keys it binds, those whose `place_in_rollout` is less; None binds all.
    """

    node: str
    scope: Scope
    policy: str
    verdict: Verdict
    stamp: Stamp
    partition: int
    code: str
    reason: str
    action_id: str
    expires_at: float
    reset_at: float | None = None
    max_rps: float | None = None
    burst: int | None = None
    model: str | None = None
    percent: float | None = None


def place_in_rollout(policy: str, key: str) -> float:
    """Return where an API key stands in a policy's rollout, 0 <= place < 100.

    It hangs on the two names only: who is among the first 5 % is among the first 20 %, and a wider share takes no
    key back. Another policy begins with other keys. `check.lua` computes the same.

    Examples:
        >>> round(place_in_rollout("cap", "key-1"), 3), round(place_in_rollout("spike", "key-1"), 3)
        (15.37, 10.082)
    """
    digest = hashlib.sha1(f"{policy}|{key}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) / 2**32 * 100
