"""What a detector is. Detectors measure and explain; they decide nothing."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from mypy_extensions import mypyc_attr
from pydantic import Field

from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import Features, Gap
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.parts.part import Part
from spendbrake.schemas.reading import NewSeries, SessionReading


class Params(Part):
    """Base of a detector's parameters: immutable, unknown names refused, `enabled: false` switches it off."""

    enabled: bool = True


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a detector saw, before anybody decides whether it is worth a page.

    Attributes:
        excess: Money above what was expected, nano-USD: over the last `span_s` seconds for buckets, of the
            subject from its beginning for facts.
        step: What this reading alone adds to the excess of an incident that is under way; None when `excess`
            is the subject's running total and replaces its earlier value.
        subject: What the evidence is about, when a node has several: a session, a series.
        key: API key that carries it, where the reading tells.
        text: One sentence for a person on call, with money and what is usual.
        holds_s: Seconds for which it stands without new evidence; None = the incident's own quiet time.
        known: The fact itself is the offence (a model nobody approved): it needs no unusual amount to be told.
        floor: Least excess worth telling where the detector has one of its own, nano-USD; None = the gate's.
        details: JSON-ready figures for the finding's evidence.
    """

    excess: NanoUsd
    text: str
    step: NanoUsd | None = None
    span_s: float = 0.0
    subject: str = ""
    key: str | None = None
    holds_s: float | None = None
    known: bool = False
    floor: NanoUsd | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Usual(NamedTuple):
    """What is usual for a team at some moment.

    Attributes:
        usd_h: Mean burn over days, USD an hour; 0.0 while nothing is known.
        alarms: Its own recent alarms, a count that decays.
        age_s: Seconds since its first bucket.
    """

    usd_h: float
    alarms: float = 0.0
    age_s: float = 0.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Detector(Generic[P]):
    """Common to all detectors. One that learns nothing leaves `to_state` and `from_state` as they are.

    No `ABC`: of compiled classes of such, `issubclass` says yes to all.

    Attributes:
        name: Unique in the catalog; the key under `detection.params` in the policy file.
        family: Detectors that see one kind of trouble; a node has one incident a family at a time.
        parameters: Its `Params` class.
        shaped_by: Names of the parameters its state depends on; a state kept under other values is left behind
            and the detector learns afresh.
        hard: What it sees is a fact, not an opinion on what is usual: no feedback changes when it is told.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    parameters: ClassVar[type[Params]]
    shaped_by: ClassVar[tuple[str, ...]] = ()
    hard: ClassVar[bool] = False

    def __init__(self, params: P) -> None:
        self.params = params

    def to_state(self) -> State:
        """Return all it has learned; arrays may alias its own (they are copied by who keeps them)."""
        return {}

    @classmethod
    def from_state(cls, params: P, state: Mapping[str, Any]) -> Self:
        """Return a detector that scores, from the next reading on, bit by bit like the one that gave `state`."""
        del state
        return cls(params)


@mypyc_attr(allow_interpreted_subclasses=True)
class BucketDetector(Detector[P]):
    """River's contract on closed buckets: `score_one` never learns, `learn_one` never scores.

    Scores are finite, high is unusual, and comparable within one series only: `calibration.Tail` makes them
    comparable. A detector of minutes is given only buckets that closed a minute
    (`Features.minute` is set), one of slots (`every_s` 300) only those that closed a slot: it is fused with the others
    of its kind.

    Attributes:
        every_s: Width of what it reads, seconds.
        on_series: Whether it also runs on a team's heaviest projects, keys and models.
    """

    every_s: ClassVar[Literal[10, 60, 300]] = 10
    on_series: ClassVar[bool] = False

    @abstractmethod
    def score_one(self, x: Features) -> float:
        """Return how unusual `x` is, raw; 0.0 before anything was learned."""

    def below(self, x: Features, score: float) -> bool:
        """Say whether the score of `x` is sure to be no more than `score`, where that is cheaper than to score it."""
        del x, score
        return False

    @abstractmethod
    def learn_one(self, x: Features) -> None:
        """Take `x` for usual."""

    def learn_empty(self, gap: Gap) -> None:
        """Learn the empty buckets before the next reading, in one step whatever their number."""
        return

    @abstractmethod
    def explain(self, x: Features) -> Evidence:
        """Return what is unusual about `x`; called only for buckets that stand out."""


@mypyc_attr(allow_interpreted_subclasses=True)
class FactDetector(Detector[P]):
    """Reads single facts; what it returns passes the gate's money floors before anybody hears of it."""

    hard: ClassVar[bool] = True

    @classmethod
    def settled_s(cls, params: P) -> float:
        """Return for how long after a team's first event nothing new to it is told that is no offence by itself."""
        del params
        return 0.0

    @abstractmethod
    def read(self, reading: NewSeries | SessionReading, usual: Usual) -> Evidence | None:
        """Return evidence, or None when the reading is not its business or in order.

        Args:
            reading: The fact.
            usual: The team's habits at that moment.
        """


class AmountParams(Params):
    """From which amount on a trouble is told.

    Attributes:
        floor_usd: Least amount, USD ...
        floor_days: ... and as a part of what the team usually spends a day.
        over: Times the greatest amount before.
        alarm_weight: Each recent alarm of the team raises the floor by this part.
    """

    floor_usd: Annotated[float, Field(ge=0)] = 0.4
    floor_days: Annotated[float, Field(ge=0)] = 0.004
    over: Annotated[float, Field(ge=1)] = 1.5
    alarm_weight: Annotated[float, Field(ge=0)] = 0.3


A = TypeVar("A", bound=AmountParams)


@dataclass(slots=True, init=False)
class Amount:
    """Money of one kind of trouble, as it stands.

    Attributes:
        subject: What its record is kept by.
        usd: So far, or over the last `span_s` seconds.
        key: API key, `model` and `session` (its fingerprint) of the latest call in it, where there is one.
        calls: How many are behind it, where the detector counts them.
        expected: USD that are usual where nothing more is known of the subject.
    """

    subject: str
    usd: float
    key: str
    model: str
    session: int
    calls: int
    span_s: float
    expected: float

    # Its own: a dataclass has an interpreted one when it is compiled, and there are many in a bucket.
    def __init__(
        self,
        subject: str,
        usd: float,
        key: str = "",
        model: str = "",
        session: int = 0,
        calls: int = 0,
        span_s: float = 0.0,
        expected: float = 0.0,
    ) -> None:
        self.subject = subject
        self.usd = usd
        self.key = key
        self.model = model
        self.session = session
        self.calls = calls
        self.span_s = span_s
        self.expected = expected


@mypyc_attr(allow_interpreted_subclasses=True)
class AmountDetector(Detector[A]):
    """Running amounts of money of one kind of trouble.

    They are in USD and comparable with themselves: the panel holds each against the greatest that the team has
    come to before, so that what is natural for a team is learned and small money is left alone.

    Attributes:
        sees: Mark (`talks.marks`) without which no call is its business: the panel shows it only buckets with such a
            call.
    """

    sees: ClassVar[str] = ""

    @abstractmethod
    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Take in a closed bucket and its calls; return the amounts that have risen."""

    @abstractmethod
    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Return what is wrong; `named` gives the words for a session."""

    def told(self, now: float) -> None:
        """Note that one of its amounts was told."""
        return
