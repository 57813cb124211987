"""Backtest: recorded traffic as it would have gone had a policy's decisions been obeyed. Same engines, same gateway.

Each call is held against the decisions that were there when it was made: written by the worker of gateways, read by
Guard. What is refused is not made, and costs nothing; a real caller might have tried again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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
NOT_TOLD = ("limits", CHAIN, MARK, CAP)


class Gateway(Protocol):
    """Decisions, and a reader that obeys them."""

    async def write(self, actions: Sequence[Action]) -> None:
        """Put decisions before the reader (workers/act.py)."""

    async def check(self, event: UsageEvent, now: float) -> CheckResult:
        """Return what to do with a call."""


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
        self._gateway, self._lag_s = gateway, lag_s
        self._in_force: dict[tuple[str, str, str], float] = {}
        self._changed: set[tuple[str, str]] = set()
        self._vouched = False
        self.bill = Bill()

    async def run(self, lines: Iterable[bytes], progress: Callable[[int], None] = lambda line: None) -> Bill:
        """Play the file; return the bill."""
        first = 0
        for records in _slices(log_of(lines), self._lag_s):
            made = [record async for record in self._made(records)]
            run = Run(made, first, USAGE.name)
            first += len(made)
            outcome = self._engine.step(self._state, run)
            actions = self._told(outcome)
            for hop in self._above.take(outcome):
                actions += self._told(hop)
            await self._obey(actions)
            progress(records[-1].line)
        teams = self._state.teams
        self.bill.spent = int(self._state.series.total[teams.series[: len(teams)]].sum())
        return self.bill

    async def _made(self, records: Sequence[Record]) -> AsyncIterator[Record]:
        """Yield the calls that the gateway lets pass, and what is no call; one that is refused leaves a tick.

        So does what corrects a call that was refused, or made on another model: it tells of one that was not made.
        """
        for record in records:
            event = _event(record)
            if event is None:
                yield record
                continue
            if event.replaces is not None:
                yield self._corrected(record, event, event.replaces)
                continue
            self.bill.calls += 1
            result = await self._asked(event, record.at)
            self.bill.beyond += result is not None and bool(result.would)
            if result is None or result.verdict == "allow":
                yield record
                continue
            self._changed.add(_id(event))
            if result.allowed:
                self.bill.downgraded += 1
                yield replace(record, value=encode_usage_json(replace(event, model=result.model, cost=None)))
            else:
                self.bill.refused += 1
                self.bill.refused_prod += self._is_prod(event, record.at)
                yield Record(b"", record.at)

    def _corrected(self, record: Record, event: UsageEvent, original: UsageEvent) -> Record:
        if _id(original) not in self._changed:
            return record
        self._changed.add(_id(event))
        return Record(b"", record.at)

    async def _asked(self, event: UsageEvent, now: float) -> CheckResult | None:
        """Return what the gateway says; None where nothing is in force, so that it need not be asked."""
        if self._gateway is None or not any(until > now for until in self._in_force.values()):
            return None
        return await self._gateway.check(event, now)

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

    async def _obey(self, actions: list[Action]) -> None:
        if self._gateway is None:
            return
        if not self._vouched:
            self._vouched = True
            rules = self._book.at(self._state.now)
            actions += chains(self._state, rules, self._state.now)
            actions += [mark_action(self._state, USAGE.name), mark_action(self._above.state, ROLLUPS.name)]
        await self._gateway.write(actions)
        for action in actions:
            if action.effect == "limits" and action.mode == "enforce":
                place = action.node, action.scope.text(), action.policy
                if action.verdict == "allow":
                    self._in_force.pop(place, None)
                else:
                    self._in_force[place] = action.expires_at


def _event(record: Record) -> UsageEvent | None:
    """Return the call or the correction that a record tells of; None for a tick, and for what is unreadable."""
    if not record.line:
        return None
    try:
        return decode_usage_json(record.value)
    except BadRecord:
        return None


def _id(event: UsageEvent) -> tuple[str, str]:
    return event.source, event.request_id


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
