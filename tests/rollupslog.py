"""Logs of rollups to test the engine of parents with: teams that spend and tell of it, partitions in memory."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from enginelog import SECRET, START, Cut, Record, version
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.policy import Calendar
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.calendar import BudgetCalendar, day_id
from spendbrake.streams.engine.outcome import Outcome, OutRecord
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.engine.rules.book import RuleBook

UTC = "UTC/1"
USD = 10**9


def tree(*nodes: tuple[str, str, str | None, float | None], **kw: Any) -> dict[str, Any]:
    """A policy file of nodes (id, level, parent, monthly budget in USD) that blocks at the hard cap."""
    listed = [
        {"id": node, "level": level}
        | ({} if parent is None else {"parent": parent})
        | ({} if budget is None else {"monthly_budget_usd": budget})
        for node, level, parent, budget in nodes
    ]
    return {
        "levels": ["organization", "billing_group", "department", "team", "project", "key"],
        "nodes": listed,
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
            }
        ],
        "detection": {"enabled": False},
    } | kw


def engine(*documents: dict[str, Any], begins: Sequence[float] = (), partitions: int = 1) -> ParentsEngine:
    """An engine under one policy, or under several that come into force at `begins`."""
    versions = [version(document, n + 1, ([0.0, *begins])[n]) for n, document in enumerate(documents)]
    return ParentsEngine(RuleBook(partitions, versions), partitions, (SECRET,))


def internal(kind: Any, now: float, key: bytes = b"", value: bytes = b"", secret: bytes = SECRET) -> Record:
    return Record(value, now, key, seal(kind, ROLLUPS.name, key, value, secret))


def record(rollup: Rollup, now: float | None = None) -> Record:
    return internal("rollup", rollup.now if now is None else now, rollup.parent.encode(), encode(rollup))


def tick(now: float) -> Record:
    return internal("tick", now)


@cache
def calendar_of(key: str) -> BudgetCalendar:
    zone, starts_on = key.rsplit("/", 1)
    return BudgetCalendar(Calendar(timezone=zone, month_starts_on=int(starts_on)))


@dataclass
class Teams:
    """Teams that spend, each in a log of its own, and what they have not told yet."""

    keys: Sequence[str] = (UTC,)
    totals: dict[tuple[str, str, str], dict[int | str, int]] = field(default_factory=lambda: defaultdict(dict))
    untold: dict[str, set[tuple[str, str, int | str]]] = field(default_factory=lambda: defaultdict(set))
    offsets: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def spend(self, team: str, at: float, nano: int) -> None:
        self._add(team, "", "minutes", int(at // 60), nano)
        self._add(team, "", "hours", int(at // 3600), nano)
        for key in self.keys:
            calendar = calendar_of(key)
            self._add(team, key, "days", day_id(calendar.day_of(at)), nano)
            self._add(team, key, "periods", calendar.period_of(at), nano)
            self._add(team, key, "calls", calendar.period_of(at), 1)

    def _add(self, team: str, key: str, kind: str, bucket: int | str, amount: int) -> None:
        totals = self.totals[team, key, kind]
        totals[bucket] = totals.get(bucket, 0) + amount
        self.untold[team].add((key, kind, bucket))

    def tell(self, parent: str, now: float, *teams: str) -> list[Record]:
        """Records, one a calendar, of what these teams have not told yet."""
        for team in teams:
            self.offsets[team] += 7
        records = []
        for key in self.keys:
            children = tuple(self._child(team, key) for team in teams)
            records.append(record(Rollup(parent=parent, calendar=key, now=now, children=children)))
        for team in teams:
            self.untold.pop(team, None)
        return records

    def _child(self, team: str, key: str) -> ChildTotals:
        told: dict[str, dict[Any, int]] = defaultdict(dict)
        for of, kind, bucket in sorted(self.untold[team], key=str):
            if of in ("", key):
                told[kind][bucket] = self.totals[team, of, kind][bucket]
        return ChildTotals(
            child=team, stamp=Stamp(epoch=1, offset=self.offsets[team]), **({"periods": {}} | dict(told))
        )


@dataclass
class Deployment:
    """All partitions of the rollups log in memory; what is told upwards is appended where it belongs."""

    of: ParentsEngine
    logs: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    states: dict[int, ParentsState] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def put(self, *records: Record) -> None:
        """Append records to the partitions of their keys, and step until nothing moves."""
        for one in records:
            self.logs[partition_of(one.key or b"", self.of.partitions)].append(one)
        self.run()

    def tick(self, now: float) -> None:
        for partition in range(self.of.partitions):
            self.logs[partition].append(tick(now))
        self.run()

    def run(self) -> None:
        while behind := [p for p, log in self.logs.items() if self.state(p).applied + 1 < len(log)]:
            for partition in behind:
                state, log = self.state(partition), self.logs[partition]
                first = state.applied + 1
                outcome = self.of.step(state, Cut(log[first:], first, partition, ROLLUPS.name))
                self.outcomes.append(outcome)
                for out in outcome.records:
                    if out.topic == ROLLUPS.name:
                        assert out.partition is not None
                        self.logs[out.partition].append(as_record(out))

    def state(self, partition: int) -> ParentsState:
        return self.states.setdefault(partition, self.of.new_state(partition, 1))

    def spent(self, node: str, key: str = UTC) -> int:
        """What a parent has come to, of all months held."""
        parent = self.state(partition_of(node.encode(), self.of.partitions)).parents[node]
        return sum(parent.totals.book(key).months.values()) + parent.totals.book(key).closed

    def records(self, topic: str) -> list[OutRecord]:
        return [out for outcome in self.outcomes for out in outcome.records if out.topic == topic]


def as_record(out: OutRecord) -> Record:
    return Record(out.value, out.at, out.key, tuple(out.headers))


def cuts(log: Sequence[Record], size: int, partition: int = 0) -> Iterable[Cut]:
    for first in range(0, len(log), size):
        yield Cut(log[first : first + size], first, partition, ROLLUPS.name)


__all__ = ["START", "USD", "UTC", "Deployment", "Teams", "cuts", "engine", "internal", "record", "tick", "tree"]
