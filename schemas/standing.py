"""Standing: the budget state of one node, as policies see it."""

from dataclasses import dataclass
from decimal import Decimal

from spendbrake.schemas.money import NanoUsd


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a node stands in its current period.

    Attributes:
        level: Name of the node's level (`team`, `project`, `key` ...).
        ancestors: Node ids from the parent up to the organization.
        partition: Partition of the log that owns the node.
        now: The log's clock at the moment of judgement.
        period: Id of the current budget period, `2026-11`.
        period_ends_at: Epoch seconds UTC at which the next period begins.
        month_to_date: Spent in the period, nano-USD.
        rate_usd_h: Burn of the last five minutes, USD an hour (for people: a float).
        forecast: Expected spend at the end of the period, nano-USD; None while there is no history.
        currency: What the node's amounts are given in; None for USD. `unit_usd` is what a unit of it is worth.
    """

    node: str
    name: str
    level: str
    team: str
    ancestors: tuple[str, ...]
    partition: int
    now: float
    period: str
    period_ends_at: float
    month_to_date: NanoUsd
    budget: NanoUsd | None = None
    allocation: NanoUsd | None = None
    rate_usd_h: float = 0.0
    forecast: NanoUsd | None = None
    currency: str | None = None
    unit_usd: Decimal = Decimal(1)
