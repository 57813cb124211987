"""The policy file: the tree, its budgets, what follows from a finding, prices and destinations. YAML in, models out.

References between parts (a parent that does not exist, two homes on a path) are checked by `budgets.tree`.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from spendbrake.schemas.decision import OnUnavailable, Verdict
from spendbrake.schemas.finding import Severity
from spendbrake.schemas.parts.approvers import Approvers as Approvers
from spendbrake.schemas.parts.currency import Amount, Currency
from spendbrake.schemas.parts.delivery import Delivery
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.schemas.parts.part import Name as Name
from spendbrake.schemas.parts.part import Part as Part
from spendbrake.schemas.parts.prices import PriceOverride as PriceOverride
from spendbrake.schemas.parts.prices import Prices as Prices
from spendbrake.schemas.parts.rollout import Rollout

Basis = Literal["daily_forecast", "monthly_budget", "monthly_allocation", "month_over_month", "unplaced"]
"""`unplaced` is money whose time no window holds, a month: of home nodes and above, from `floor_usd` on."""
Model = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
"""Name of a model that gateways are told, in headers too."""
Usd = Annotated[Decimal, Field(ge=0, le=Decimal(10) ** 9, allow_inf_nan=False)]


class Calendar(Part):
    """When days and months begin."""

    timezone: str = "UTC"
    month_starts_on: int = Field(1, ge=1, le=28, description="Day of the month on which the fiscal month begins.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone != "UTC" and zone not in available_timezones():
            raise ValueError(f"unknown IANA time zone {zone!r}")
        ZoneInfo(zone)
        return zone


class Tier(Part):
    """A threshold on a named basis. Fires once per node, period of the basis and arming."""

    name: Name
    basis: Basis
    at: Annotated[Decimal, Field(gt=0, le=100)] = Field(description="Fraction of the basis: 0.9 is 90 %.")
    severity: Severity
    floor_usd: Usd = Field(Decimal(0), description="Below this spend in the basis' period the tier keeps silent.")


class BurnRate(Part):
    """A team, or a node above, spends so many times as fast as its budget allows: over a long and still a short window.

    Fast: 14.4 times over 1 h and 5 min is 2 % of a month's budget in an hour. Slow: 1.5 times over 3 d and 6 h.
    """

    name: Name
    long_s: int = Field(ge=600, le=31 * 86_400, description="Seconds; past 2 h whole hours, past 2 days whole days.")
    short_s: int = Field(ge=60, le=31 * 86_400, description="Likewise, and shorter.")
    times: Annotated[Decimal, Field(gt=0, le=10_000)] = Field(description="1 spends the month's budget in a month.")
    severity: Severity
    floor_usd: Usd = Field(Decimal(1), description="Less than this in the long window is silent.")
    levels: tuple[Name, ...] | None = Field(
        None, description="Of the nodes it is about: the home level and those above it; all of them when absent."
    )

    @field_validator("long_s", "short_s")
    @classmethod
    def _whole(cls, length_s: int) -> int:
        unit = 60 if length_s <= 7_200 else 3_600 if length_s <= 172_800 else 86_400
        if length_s % unit:
            raise ValueError(f"not a multiple of {unit}")
        return length_s

    @model_validator(mode="after")
    def _shorter(self) -> Self:
        if self.short_s >= self.long_s:
            raise ValueError("short_s must be less than long_s")
        return self


DEFAULT_TIERS: tuple[Tier, ...] = (
    Tier(name="half-day", basis="daily_forecast", at=Decimal("0.5"), severity="info", floor_usd=Decimal(5)),
    Tier(name="soft", basis="monthly_budget", at=Decimal("0.7"), severity="warning"),
    Tier(name="critical", basis="monthly_budget", at=Decimal("0.9"), severity="critical"),
    Tier(
        name="month-over-month",
        basis="month_over_month",
        at=Decimal("1.2"),
        severity="critical",
        floor_usd=Decimal(50),
    ),
    Tier(name="hard-cap", basis="monthly_allocation", at=Decimal(1), severity="critical"),
    Tier(name="unplaced", basis="unplaced", at=Decimal(1), severity="critical", floor_usd=Decimal(10)),
)


class Limits(Part):
    """What a node may spend, and who is told. All optional: what is absent is inherited or unlimited."""

    monthly_budget_usd: Usd | None = None
    monthly_allocation_usd: Usd | None = Field(None, description="The hard cap; the budget when absent.")
    rollover_percent: int = Field(
        0,
        ge=0,
        le=100,
        description="Of the allocation: the most of an unspent rest that raises the next month's limits.",
    )
    reserve_usd: Usd | None = Field(
        None, description="A pool a month for top-ups of nodes below; only above the home level."
    )
    currency: Currency | None = Field(None, description="Of the three amounts that follow, here and below.")
    monthly_budget: Amount | None = Field(None, description="In the currency; instead of `monthly_budget_usd`.")
    monthly_allocation: Amount | None = Field(None, description="Likewise.")
    reserve: Amount | None = Field(None, description="Likewise.")
    expires_at: datetime | None = Field(
        None, description="End of the allocation: from then on nothing may be spent. UTC where no offset is given."
    )
    tiers: tuple[Name, ...] | None = Field(None, description="Names of the tiers that apply; all when absent.")
    approved_models: tuple[str, ...] | None = Field(None, description="fnmatch patterns; others are findings.")
    refuse_unapproved: bool | None = Field(
        None, description="Gateways refuse models off the list, too; patterns with `*` only. Inherited; no when absent."
    )
    environments: tuple[str, ...] | None = Field(
        None, description="fnmatch patterns of environments whose calls it pays for; others are findings."
    )
    on_unavailable: OnUnavailable | None = None
    calendar: Calendar | None = None
    owner: str | None = None
    contacts: tuple[str, ...] = ()
    cost_center: str | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.refuse_unapproved and any(set(pattern) & set("?[") for pattern in self.approved_models or ()):
            raise ValueError("gateways read no ? and no [ in approved_models: with refuse_unapproved use * only")
        return self

    @model_validator(mode="after")
    def _in_one_currency(self) -> Self:
        for name in ("monthly_budget", "monthly_allocation", "reserve"):
            if getattr(self, name) is not None and getattr(self, f"{name}_usd") is not None:
                raise ValueError(f"give {name} in the currency, or {name}_usd, not both")
        return self


class Node(Limits):
    """One node of the tree. Its id is immutable; its name is a label."""

    id: Name
    level: Name
    parent: Name | None = Field(None, description="Node id; only the root has none.")
    name: str = ""
    match: tuple[str, ...] = Field(
        (), description="Names that events use for it (team, project or key), besides its id and name."
    )


class NodeDefault(Limits):
    """What holds for a node of a level that events name and the file does not list."""

    parent: Name | None = Field(None, description="Where an unlisted home node hangs; the root when absent.")


class ScopeRule(Part):
    """Which calls of the node a limit is about; all when empty."""

    environment: tuple[str, ...] | None = Field(
        None, description="Names of environments; `non-prod` stands for every name in `non_production`."
    )
    models: tuple[str, ...] | None = None


class Limit(Part):
    """A decision to put before the gateways."""

    verdict: Verdict
    scope: ScopeRule = ScopeRule()
    max_rps: float | None = Field(None, gt=0, le=1_000_000)
    burst: int | None = Field(None, ge=1, le=1_000_000)
    model: Model | None = Field(None, description="The model to use, under `downgrade`.")
    routes: Mapping[str, Model] = Field(
        default_factory=dict,
        description="Under `downgrade`, instead of `model`: model pattern -> model to use; others stay.",
    )
    ttl_s: float | None = Field(
        None, gt=0, le=32 * 86_400, description="Life of the limit; a budget's own period end when absent."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.verdict == "throttle" and self.max_rps is None:
            raise ValueError("throttle needs max_rps")
        if self.verdict == "downgrade" and (self.model is None) == (not self.routes):
            raise ValueError("downgrade needs the model to use, or routes from models to others")
        if self.routes and (self.verdict != "downgrade" or self.scope.models is not None):
            raise ValueError("routes are for downgrade, and name the models themselves")
        return self

    def parts(self) -> "tuple[Limit, ...]":
        """Return the limits it stands for: one for each route, or itself."""
        if not self.routes:
            return (self,)
        scopes = {pattern: self.scope.model_copy(update={"models": (pattern,)}) for pattern in self.routes}
        return tuple(
            self.model_copy(update={"routes": {}, "model": model, "scope": scopes[pattern]})
            for pattern, model in self.routes.items()
        )


class Rung(Part):
    """One step of the ladder."""

    name: Name
    after_s: float = Field(0, ge=0, description="Dwell on the rung below before this one is climbed, seconds.")
    limit: Limit | None = None
    notify: tuple[Name, ...] = Field((), description="Names of destinations.")


class When(Part):
    """Which findings a policy answers: those of its tiers or its detectors, if every other given field matches."""

    tiers: tuple[Name, ...] | None = None
    detectors: tuple[Name, ...] | None = Field(None, description="Names in the detector catalog; `*` = any of them.")
    severities: tuple[Severity, ...] | None = None
    levels: tuple[Name, ...] | None = None
    environments: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.tiers is None and self.detectors is None:
            raise ValueError("name the tiers or the detectors the policy answers")
        return self


class Policy(Part):
    """What follows from a finding: a ladder of rungs."""

    name: Name
    when: When
    mode: Literal["enforce", "shadow"] = "enforce"
    canary_percent: float | None = Field(
        None, gt=0, le=100, description="Limits bind this share of the keys; for the others they are in shadow."
    )
    rollout: Rollout = Field((), description="From when on that share is wider, by itself.")
    target: Literal["finding", "key", "named_key"] = Field(
        "finding",
        description="Whom a limit binds: the node of the finding; the key that carries the excess, or the node where "
        "none does (`key`); that key, or nobody (`named_key`).",
    )
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)]
    hold_s: float = Field(900, gt=0, le=7 * 86_400, description="Quiet time after which an incident's limits lift.")


class Detection(Part):
    """How detectors are tuned for everyone: one configuration."""

    enabled: bool = True
    false_alarms_per_team_week: float = Field(0.25, gt=0, le=100)
    floor_usd_h: Usd = Field(Decimal("0.5"), description="Excess below this burn is noise for the smallest team.")
    learn_anomalies: bool = False
    params: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Parameters by detector name; `enabled: false` switches one off."
    )


class PolicyFile(Part):
    """The whole file."""

    version: Literal[1] = 1
    levels: tuple[Name, ...] = ("organization", "billing_group", "team", "project", "key")
    home: Name = Field("team", description="The level whose nodes own partitions; crossed once on every path.")
    calendar: Calendar = Calendar()
    tiers: tuple[Tier, ...] = DEFAULT_TIERS
    burn_rates: tuple[BurnRate, ...] = ()
    caps_count_unplaced: bool = Field(
        False, description="Whether money whose time no window holds counts to the hard caps of the month it comes in."
    )
    nodes: Annotated[tuple[Node, ...], Field(min_length=1)]
    defaults: Mapping[Name, NodeDefault] = Field(default_factory=dict, description="By level.")
    untagged: Limits = Field(Limits(), description="The team of calls that nobody owns.")
    policies: tuple[Policy, ...] = ()
    approvers: Approvers = Approvers()
    destinations: Mapping[Name, Destination] = Field(default_factory=dict)
    delivery: Delivery = Delivery()
    prices: Prices = Prices()
    detection: Detection = Detection()
    on_unavailable: OnUnavailable = "open"
    non_production: tuple[str, ...] = ("dev", "development", "staging", "test", "sandbox")
