"""Backtest: recorded traffic as it would have gone had a policy's decisions been obeyed. Same engines, same gateway.

Each call is held against the decisions that were there when it was made: written by the worker of gateways, read by
Guard. What is refused is not made, and costs nothing; a real caller might have tried again.
"""

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Protocol, TypeGuard

from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import OwnersVersion, PolicyVersion
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.topics import ACTIONS, FINDINGS, ROLLUPS, USAGE, USAGE_DLQ
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import decode_usage_json, encode_usage_json
from spendbrake.streams.engine.caps import CAP
from spendbrake.streams.engine.chains import CHAIN, MARK, chains, mark_action
from spendbrake.streams.engine.emit import MESSAGE_HEADER
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.offline.above import Above, Run
from spendbrake.streams.offline.replay import DEDUPE_BLOCKS, SECRET, Record, log_of

LAG_S = 1.0
"""From an event to the decision it leads to, in the gateways: what is measured on Kafka, at the worst."""
MOST = 1_000
TICK_S = 1.0
NOT_TOLD = ("limits", CHAIN, MARK, CAP)


class Gateway(Protocol):
    """Decisions, and a reader that obeys them."""

    async def write(self, actions: Sequence[Action]) -> None:
        """Put decisions before the reader (workers/act.py)."""

    async def check(self, calls: Sequence[tuple[UsageEvent, float]]) -> Sequence[CheckResult]:
        """Return what to do with calls, each at its moment, in their order."""


@dataclass(slots=True)
class Bill:
    """What a policy has come to.

    Attributes:
        spent: What was made in the end, nano-USD.
        refused_prod: Refused calls of an environment that is not named non-production.
        downgraded: Calls made with another model.
        beyond: Calls that a limit did not touch because its rollout has not reached their key.
        told: Messages to people, by effect.
        bad: Lines that could not be counted, and why the first of them could not.
        late: Lines that are more than an hour behind those before them.
    """

    spent: NanoUsd = 0
    calls: int = 0
    refused: int = 0
    refused_prod: int = 0
    downgraded: int = 0
    beyond: int = 0
    findings: int = 0
    told: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    why: str = ""
    late: int = 0

    @property
    def pages(self) -> int:
        """Return how many messages people got."""
        return sum(self.told.values())


class Backtest:
    """One policy over one file.

    Args:
        gateway: None where nobody obeys: what was spent without a brake.
        lag_s: How old decisions are when they reach the gateways.
    """

    def __init__(
        self,
        policy: PolicyVersion,
        owners: Iterable[OwnersVersion] = (),
        gateway: Gateway | None = None,
        lag_s: float = LAG_S,
    ) -> None:
        self._book = RuleBook(1, [policy], owners)
        self._engine = Engine(self._book, EngineSettings(partitions=1, secrets=(SECRET,), dedupe_blocks=DEDUPE_BLOCKS))
        self._state, self._above = self._engine.new_state(0, 1), Above(self._book, SECRET)
        self._gateway, self._lag_s = gateway, lag_s if gateway is not None else math.inf
        self._coming: deque[tuple[float, list[Action]]] = deque()
        self._in_force: dict[tuple[str, str, str], float] = {}
        self._until = self._ticked = -math.inf
        self._changed: set[int] = set()
        self._vouched = False
        self.bill = Bill()

    async def run(self, lines: Iterable[bytes], progress: Callable[[int], None] = lambda line: None) -> Bill:
        """Play the file; return the bill."""
        first = 0
        for records in _slices(log_of(lines), self._lag_s):
            made: list[Record] = []
            self.bill.late += sum(record.late for record in records)
            for part in self._between(records):
                await self._arrive(part[0].at)
                made += await self._made(part)
            if made:
                run = Run(made, first, USAGE.name)
                first += len(made)
                outcome = self._engine.step(self._state, run)
                self._send(self._told(outcome))
                for hop in self._above.take(outcome):
                    self._send(self._told(hop))
            progress(records[-1].line)
        teams = self._state.teams
        self.bill.spent = int(self._state.series.total[teams.series[: len(teams)]].sum())
        return self.bill

    def _between(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Yield the records in runs between which decisions reach the gateways."""
        begin = 0
        for due, _ in list(self._coming):
            end = bisect_left(records, due, begin, key=attrgetter("at"))
            if end > begin:
                yield records[begin:end]
                begin = end
        if begin < len(records):
            yield records[begin:]

    async def _made(self, records: Sequence[Record]) -> list[Record]:
        """Return the calls that the gateway lets pass, and what is no call; the clock goes on where one is refused.

        So it does where one corrects a call that was refused, or made on another model: it tells of none that was made.
        """
        events = [_event(record) for record in records]
        calls = [(event, record.at) for event, record in zip(events, records, strict=True) if _is_call(event)]
        results = iter(await self._asked(calls))
        made: list[Record] = []
        for record, event in zip(records, events, strict=True):
            if event is None:
                made.append(record)
            elif event.replaces is not None:
                made += self._corrected(record, event, event.replaces)
            else:
                made += self._obeyed(record, event, next(results))
        return made

    def _obeyed(self, record: Record, event: UsageEvent, result: CheckResult | None) -> Iterable[Record]:
        self.bill.calls += 1
        self.bill.beyond += result is not None and bool(result.would)
        if result is None or result.verdict == "allow":
            return (record,)
        self._changed.add(_id(event))
        if result.allowed:
            self.bill.downgraded += 1
            # The model may be another provider's.
            provider = self._book.at(record.at).prices.provider_of(result.model, event.provider)
            other = replace(event, model=result.model, provider=provider, cost=None)
            return (replace(record, value=encode_usage_json(other)),)
        self.bill.refused += 1
        self.bill.refused_prod += self._is_prod(event, record.at)
        return self._tick(record.at)

    def _tick(self, at: float) -> Iterable[Record]:
        """Return a tick, one a second."""
        if at < self._ticked + TICK_S:
            return ()
        self._ticked = at
        return (Record(b"", at),)

    def _corrected(self, record: Record, event: UsageEvent, original: UsageEvent) -> Iterable[Record]:
        if _id(original) not in self._changed:
            return (record,)
        self._changed.add(_id(event))
        return self._tick(record.at)

    async def _asked(self, calls: Sequence[tuple[UsageEvent, float]]) -> Sequence[CheckResult | None]:
        """Return what the gateway says; None where nothing is in force, so that it need not be asked."""
        if self._gateway is None or not calls or self._until <= calls[0][1]:
            return [None] * len(calls)
        return await self._gateway.check(calls)

    def _is_prod(self, event: UsageEvent, now: float) -> bool:
        return event.environment not in self._book.at(now).file.non_production

    def _told(self, outcome: Outcome) -> list[Action]:
        actions = []
        for record in outcome.records:
            if record.topic == FINDINGS.name:
                self.bill.findings += 1
            elif record.topic == USAGE_DLQ.name:
                self.bill.bad += 1
                self.bill.why = self.bill.why or dict(record.headers)[MESSAGE_HEADER].decode()
            elif record.topic == ACTIONS.name:
                action = decode(Action, record.value or b"")
                actions.append(action)
                if action.effect not in NOT_TOLD and action.mode == "enforce":
                    self.bill.told[action.effect] += 1
        return actions

    def _send(self, actions: list[Action]) -> None:
        """Send decisions on their way to the gateways."""
        if self._gateway is None:
            return
        if not self._vouched:
            self._vouched = True
            rules = self._book.at(self._state.now)
            actions += chains(self._state, rules, self._state.now)
            actions += [mark_action(self._state, USAGE.name), mark_action(self._above.state, ROLLUPS.name)]
        for at, some in groupby(sorted(actions, key=attrgetter("time")), attrgetter("time")):
            self._coming.append((at + self._lag_s, list(some)))

    async def _arrive(self, now: float) -> None:
        """Put before the gateways what has come to them by now."""
        actions: list[Action] = []
        while self._coming and self._coming[0][0] <= now:
            actions += self._coming.popleft()[1]
        if self._gateway is None or not actions:
            return
        await self._gateway.write(actions)
        for action in actions:
            if action.effect == "limits" and action.mode == "enforce":
                place = action.node, action.scope.text(), action.policy
                self._in_force.pop(place, None)
                if action.verdict != "allow":
                    self._in_force[place] = action.expires_at
        self._until = max(self._in_force.values(), default=-math.inf)


def _event(record: Record) -> UsageEvent | None:
    """Return the call or the correction that a record tells of; None for a tick, and for what is unreadable."""
    if not record.line:
        return None
    try:
        return decode_usage_json(record.value)
    except BadRecord:
        return None


def _is_call(event: UsageEvent | None) -> TypeGuard[UsageEvent]:
    return event is not None and event.replaces is None


def _id(event: UsageEvent) -> int:
    return hash((event.source, event.request_id))


def _slices(records: Iterator[Record], lag_s: float) -> Iterator[list[Record]]:
    """Yield runs of records that begin within `lag_s` of each other."""
    held: list[Record] = []
    for record in records:
        if held and (record.at - held[0].at >= lag_s or len(held) == MOST):
            yield held
            held = []
        held.append(record)
    if held:
        yield held
