"""A log to test the engine with: events in, batches of one partition out, cut wherever the test wants."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from spendbrake.schemas.command import InternalKind
from spendbrake.schemas.control import OwnersVersion, PolicyVersion
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Outcome, OutRecord
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings
from spendbrake.streams.engine.step import Engine, EngineSettings

SECRET = b"secret of the tests"
START = 1_767_571_200.0  # 2026-01-05T00:00:00Z, a Monday


@dataclass
class Record:
    value: bytes | None
    at: float
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Cut:
    """A batch of consecutive records; offsets are `apart`."""

    records: Sequence[Record]
    first: int
    partition: int = 0
    topic: str = "usage.v1"
    apart: int = 1

    @property
    def offsets(self) -> Sequence[int]:
        return range(self.first * self.apart, (self.first + len(self.records)) * self.apart, self.apart)

    @property
    def values(self) -> list[bytes | None]:
        return [r.value for r in self.records]

    @property
    def keys(self) -> list[bytes | None]:
        return [r.key for r in self.records]

    @property
    def timestamps_ms(self) -> list[int]:
        return [round(r.at * 1000) for r in self.records]

    @property
    def headers(self) -> list[tuple[tuple[str, bytes], ...]]:
        return [r.headers for r in self.records]


@dataclass
class Log:
    """All records of one partition, in order."""

    records: list[Record] = field(default_factory=list)

    def add(self, event: UsageEvent, now: float | None = None) -> None:
        self.records.append(Record(encode(event), event.time if now is None else now))

    def raw(self, value: bytes | None, now: float, **kw: Any) -> None:
        self.records.append(Record(value, now, **kw))

    def internal(self, kind: InternalKind, now: float, key: bytes = b"", value: bytes = b"") -> None:
        self.records.append(Record(value, now, key, seal(kind, "usage.v1", key, value, SECRET)))

    def tick(self, now: float) -> None:
        self.internal("tick", now)

    def cuts(self, at: Iterable[int] = ()) -> Iterator[Cut]:
        bounds = [0, *sorted(at), len(self.records)]
        for a, b in pairwise(bounds):
            if b > a:
                yield Cut(self.records[a:b], a)

    def every(self, n: int) -> Iterator[Cut]:
        return self.cuts(range(n, len(self.records), n))


def event(i: int, at: float, **kw: Any) -> UsageEvent:
    """An event of $0.01 on team `a` unless said otherwise."""
    base: dict[str, Any] = dict(
        request_id=f"r{i}",
        time=at,
        api_key_id="key-1",
        provider="openai",
        model="gpt-4o",
        team="a",
        input_tokens=1000,
        output_tokens=100,
        cost=10_000_000,
    )
    return UsageEvent(**(base | kw))


def policy(**kw: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "nodes": [{"id": "acme", "level": "organization"}],
        "defaults": {"team": {"monthly_budget_usd": 100}},
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
            }
        ],
        "detection": {"enabled": False},
    }
    return base | kw


def version(document: dict[str, Any], number: int = 1, valid_from: float = 0.0) -> PolicyVersion:
    PolicyFile.model_validate(document)
    return PolicyVersion(
        version=number, valid_from=valid_from, published_at=valid_from - 60, digest="", document=document
    )


def versions(*documents: tuple[float, dict[str, Any]]) -> list[PolicyVersion]:
    """Policy versions from (moment from which it is in force, document)."""
    return [version(document, number, at) for number, (at, document) in enumerate(documents, 1)]


def engine(
    document: dict[str, Any] | None = None,
    *,
    partitions: int = 1,
    blocks: int = 4,
    versions: Sequence[PolicyVersion] = (),
    owners: Sequence[OwnersVersion] = (),
) -> Engine:
    given = list(versions) or [version(document or policy())]
    name = repr((partitions, given, owners))
    if name not in _BOOKS:  # compiled once: a book is never changed by an engine
        _BOOKS[name] = RuleBook(partitions, given, owners)
    return Engine(_BOOKS[name], EngineSettings(partitions=partitions, secrets=(SECRET,), dedupe_blocks=blocks))


_BOOKS: dict[str, RuleBook] = {}


def play(cuts: Iterable[Cut], of: Engine | None = None) -> tuple[PartitionState, list[Outcome]]:
    of = of or engine()
    state = of.new_state(0, 1)
    return state, [of.step(state, cut) for cut in cuts]


def outputs(records: Iterable[OutRecord]) -> dict[str, set[OutRecord]]:
    """What was sent, by topic, without repetitions; rollups apart: they tell of states (see Merged)."""
    found: dict[str, set[OutRecord]] = defaultdict(set)
    for record in records:
        if record.topic != "rollups.v1":
            found[record.topic].add(record)
    return found


def books(state: PartitionState) -> dict[Any, Any]:
    """All amounts of a state, by team, kind and name."""
    table, teams = state.series, state.teams
    found: dict[Any, Any] = {
        (teams.names[name.team], name.kind, name.name): (
            int(table.total[row]),
            int(table.month[row]),
            held(table.days, row),
            held(table.hours, row),
        )
        for row, name in enumerate(table.names)
    }
    for row, team in enumerate(teams.names):
        found[team] = (int(teams.unplaced[row]), int(teams.n_unplaced[row]), held(teams.fine, row))
        found[team] += tuple(held(ring, row) for ring in (teams.minutes, teams.hours, teams.days))
    return found


def held(ring: Rings, row: int) -> dict[tuple[str, int], int]:
    """What a ring holds of a row: (field, bucket) -> amount, without zeros."""
    head = int(ring.head[row])
    buckets = range(max(head - ring.cells + 1, 0), head + 1)
    return {
        (name, b): int(a[row, b % ring.cells])
        for name, a in ring.fields.items()
        for b in buckets
        if a[row, b % ring.cells]
    }


class Merged:
    """Rollups as a parent takes them in: by child, the later stamp holds.

    Two are equal when they agree on periods and days. Hours and minutes that have left the rings by the time of a
    rollup are not told, so those depend on when rollups are sent.
    """

    def __init__(self, records: Iterable[OutRecord]) -> None:
        self.cells: dict[Any, tuple[int, int]] = {}
        for record in records:
            if record.topic == "rollups.v1" and record.value is not None:
                self._take(decode(Rollup, record.value))

    def _take(self, rollup: Rollup) -> None:
        for child in rollup.children:
            for kind in ("periods", "calls", "unplaced", "days", "hours", "minutes"):
                for bucket, amount in getattr(child, kind).items():
                    where = (rollup.parent, rollup.calendar, child.child, kind, bucket)
                    stamp, _ = self.cells.get(where, (-1, 0))
                    if child.stamp.offset >= stamp:
                        self.cells[where] = child.stamp.offset, amount

    def amounts(self, *kinds: str) -> dict[Any, int]:
        return {where: amount for where, (_, amount) in self.cells.items() if amount and where[3] in kinds}

    def __eq__(self, other: object) -> bool:
        kinds = ("periods", "calls", "unplaced", "days")
        return isinstance(other, Merged) and self.amounts(*kinds) == other.amounts(*kinds)
