"""What everything must come to, counted again in plain Python from the log that was produced. It asks no worker.

Two books. Totals are counted without an order: each id once, less what corrections replace; nothing of what workers
have written is looked at. Tiers follow the order of each home's log, where forwards by workers stand beside what
producers have put there; so the first book proves the second one's input.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from chaos.company import TIERS, UNPLACED, UNPLACED_AT, Company
from kafka.bill import cost_of
from kafka.deployment import SECRET, Kept
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.envelope import decode_usage, kind_of, open_internal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of

AHEAD_S = 600.0
Id = tuple[str, str]
Series = tuple[str, str, str]
"""Team, kind, name."""


@dataclass(frozen=True, order=True)
class Turn:
    """A tier that opened (odd) or was resolved (even); `told` is whether people hear of its opening."""

    node: str
    tier: str
    number: int
    told: bool = field(compare=False, default=True)


@dataclass
class Expected:
    """The books.

    Attributes:
        cost: nano-USD by series.
        calls: The same, calls.
        above: nano-USD by node above the teams.
        apart: Calls by team at times that have no place.
        apart_above: What those cost by node above the teams, nano-USD.
        turns: What tiers of teams, projects and keys have done.
        standing: (node, tier) at the end, of all nodes.
        n_records: Records that producers have put on the topic.
    """

    cost: Counter[Series] = field(default_factory=Counter)
    calls: Counter[Series] = field(default_factory=Counter)
    above: Counter[str] = field(default_factory=Counter)
    apart: Counter[str] = field(default_factory=Counter)
    apart_above: Counter[str] = field(default_factory=Counter)
    turns: set[Turn] = field(default_factory=set)
    standing: set[tuple[str, str]] = field(default_factory=set)
    n_records: int = 0


def recount(company: Company, partitions: Mapping[int, Iterable[Kept]]) -> Expected:
    """Return what the log of usage must come to."""
    found, seen = Expected(), set[Id]()
    for number, records in partitions.items():
        home = Home(company, number, len(partitions))
        for record in records:
            origin = _origin(record)
            found.n_records += origin in ("producer", "forged")
            event = _event(record) if origin in ("producer", "forward") else None
            if event is None:
                continue
            if event.time > record.at_ms / 1000 + AHEAD_S:
                found.apart[event.team or ""] += 1
                found.turns.update(home.take_apart(event))
                continue
            if origin == "producer":
                _count(found, seen, event)
            found.turns.update(home.take(event, origin == "forward"))
        found.standing |= home.standing
        for team, cost in home.apart.items():
            found.apart_above.update(dict.fromkeys(company.above(team), cost))
    for (team, kind, _), cost in found.cost.items():
        for node in company.above(team) if kind == "team" else ():
            found.above[node] += cost
    limits = {node: company.budgets[node] for node in found.above}
    found.standing |= {(n, t) for n in limits for t, at in TIERS.items() if found.above[n] >= limit_of(limits[n], at)}
    return found


def limit_of(budget: int, share: float) -> int:
    """Return the amount at which a tier opens; budgets are whole cents and shares whole percents."""
    return budget * round(share * 100) // 100


def _count(found: Expected, seen: set[Id], event: UsageEvent) -> None:
    own = (event.source, event.request_id)
    if own in seen:
        return
    seen.add(own)
    for each, sign in _signed(event):
        cost = sign * price(each)
        for series in _series(each):
            found.cost[series] += cost
            found.calls[series] += sign


def _signed(event: UsageEvent) -> Iterator[tuple[UsageEvent, int]]:
    yield event, 1
    if event.replaces is not None:
        yield event.replaces, -1


def _series(event: UsageEvent) -> Iterator[Series]:
    team = event.team or ""
    yield team, "team", team
    yield team, "key", event.api_key_id
    yield team, "model", event.model
    if event.project:
        yield team, "project", event.project
    if event.environment:
        yield team, "environment", event.environment


class Home:
    """The tiers of the nodes whose home is one partition, moved record by record."""

    def __init__(self, company: Company, number: int, partitions: int) -> None:
        self.company, self.number, self.partitions = company, number, partitions
        self.standing: set[tuple[str, str]] = set()
        self._seen: set[Id] = set()
        self._dropped: set[Id] = set()
        self._spent: Counter[str] = Counter()
        self._turns: Counter[tuple[str, str]] = Counter()
        self._at: dict[str, dict[str, int]] = {}
        self.apart: Counter[str] = Counter()

    def take(self, event: UsageEvent, forwarded: bool) -> Iterator[Turn]:
        """Yield what a record moves."""
        touched: set[str] = set()
        for each, sign in self._parts(event, forwarded):
            cost = sign * price(each)
            for node in self._nodes(each):
                self._spent[node] += cost
                touched.add(node)
        for node in sorted(touched):
            yield from self._judge(node)

    def take_apart(self, event: UsageEvent) -> Iterator[Turn]:
        """Yield what a record moves whose time has no place; producers send it to its home, and once."""
        team = event.team or ""
        self.apart[team] += price(event)
        if self.apart[team] >= UNPLACED_AT and (team, UNPLACED) not in self.standing:
            self.standing.add((team, UNPLACED))
            yield self._turn(team, UNPLACED)

    def _parts(self, event: UsageEvent, forwarded: bool) -> list[tuple[UsageEvent, int]]:
        """Return what counts here: a correction goes by its original's home first, then to its own."""
        original, own = event.replaces, (event.source, event.request_id)
        here = self._is_home(event) if original is None else self._is_home(original)
        added_only = original is not None and not here and forwarded and self._is_home(event)
        if own in self._seen or not (here or added_only):
            return []
        self._seen.add(own)
        if original is None:
            return [] if own in self._dropped else [(event, 1)]
        new = [(event, 1)] if self._is_home(event) else []
        first = (original.source, original.request_id)
        if added_only:
            return new
        if first not in self._seen:
            self._dropped.add(first)
            return new
        return [(original, -1), *new]

    def _judge(self, node: str) -> Iterator[Turn]:
        spent, opened = self._spent[node], []
        for tier, at in self._limits(node).items():
            stands = (node, tier) in self.standing
            if stands and spent < at:
                self.standing.discard((node, tier))
                yield self._turn(node, tier)
            elif not stands and spent >= at:
                self.standing.add((node, tier))
                opened.append(tier)
        for tier in opened:
            yield self._turn(node, tier, told=tier in (opened[-1], "hard-cap"))

    def _turn(self, node: str, tier: str, told: bool = True) -> Turn:
        self._turns[node, tier] += 1
        return Turn(node, tier, self._turns[node, tier], told)

    def _is_home(self, event: UsageEvent) -> bool:
        return home_of(event.team or "", self.partitions) == self.number

    def _nodes(self, event: UsageEvent) -> Iterator[str]:
        team = event.team or ""
        yield team
        yield event.api_key_id
        if event.project:
            yield f"{team}/{event.project}"

    def _limits(self, node: str) -> dict[str, int]:
        if node not in self._at:
            other = self.company.project_budget if "/" in node else self.company.key_budget
            budget = self.company.budgets.get(node, other)
            self._at[node] = {tier: limit_of(budget, share) for tier, share in TIERS.items()}
        return self._at[node]


@cache
def home_of(team: str, partitions: int) -> int:
    return partition_of(team.encode(), partitions)


PRICES: dict[tuple[str, str, int, int, int], int] = {}


def price(event: UsageEvent) -> int:
    """Return the price by the library, asked once for each model and number of tokens."""
    what = (event.provider, event.model, event.input_tokens, event.cache_read_tokens, event.output_tokens)
    if what not in PRICES:
        PRICES[what] = cost_of(event)
    return PRICES[what]


def _event(record: Kept) -> UsageEvent | None:
    try:
        return decode_usage(record.value, record.headers)
    except BadRecord:
        return None


def _origin(record: Kept) -> str:
    """Tell who has written a record: `producer`, a worker's kind, or `forged` for a producer that would be a worker."""
    kind = kind_of(record.headers) if record.headers else None
    if kind is None:
        return "producer"
    try:
        open_internal(kind, USAGE.name, record.key, record.value, record.headers, (SECRET.encode(),))
    except BadRecord:
        return "forged"
    return kind
