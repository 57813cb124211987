"""Replay: a file of events through the engines, with no broker and no Redis. The same `step` as the agents'."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from spendbrake.schemas.action import Action
from spendbrake.schemas.control import OwnersVersion, PolicyVersion
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, USAGE, USAGE_DLQ
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import decode_usage_json
from spendbrake.streams.engine.chains import CHAIN, MARK
from spendbrake.streams.engine.outcome import Headers, Outcome
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.offline.above import Above, Run

BATCH = 1_000
SECRET = b"replays sign their own ticks"
TICKS = seal("tick", USAGE.name, b"", b"", SECRET)
HOUR_S, DAY_S, LATER_S = 3_600.0, 86_400.0, 300.0
TICKING = ((60.0, 10.0), (2 * DAY_S, LATER_S), (70 * DAY_S, HOUR_S), (math.inf, DAY_S))
"""How long a silence has lasted, and how often the clock ticks until then: buckets close and limits run out in time."""
DEDUPE_BLOCKS = 256
PARENTS_S = 60.0
AHEAD = 16
"""Lines that are looked at to tell a silence from a wrong clock."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log that a file stands for; `line` 0 is a tick.

    Attributes:
        late: Its own time is more than an hour behind that of lines before it.
    """

    value: bytes
    at: float
    line: int = 0
    late: bool = False

    @property
    def key(self) -> bytes | None:
        """Empty for a tick."""
        return None if self.line else b""

    @property
    def headers(self) -> Headers:
        """The signature of a tick."""
        return () if self.line else TICKS


@dataclass(slots=True)
class Told:
    """What a replay has found.

    Attributes:
        bad: (line of the file, why) of what could not be counted.
        late: Lines that are more than an hour behind those before them.
    """

    findings: list[Finding] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    late: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add the findings and actions of a step."""
        for record in outcome.records:
            if record.topic == FINDINGS.name:
                self.findings.append(decode(Finding, record.value or b""))
            elif record.topic == ACTIONS.name:
                action = decode(Action, record.value or b"")
                if action.effect not in (CHAIN, MARK):  # what gateways must know of keys is no order
                    self.actions.append(action)


def log_of(lines: Iterable[bytes]) -> Iterator[Record]:
    """Yield the lines of a file as records of a log, with ticks where nothing comes."""
    now = 0.0
    timed = ((text, time_of(text), number) for number, raw in enumerate(lines, 1) if (text := raw.strip()))
    coming = deque(islice(timed, AHEAD))
    while coming:
        coming.extend(islice(timed, 1))
        line, at, number = coming.popleft()
        late = at is not None and at < now - HOUR_S
        if at is None:
            at = now
        elif at > now + HOUR_S:
            at = _believed(at, [after for _, after, _ in coming if after is not None], now)
        if now:
            yield from _ticks(now, at)
        now = max(now, at)
        yield Record(line, now, number, late)
    if now:
        yield from _ticks(now, now + LATER_S)


def _believed(at: float, following: list[float], now: float) -> float:
    """Return when a line came that is ahead of the clock: at its own time, unless most of the next lines are not."""
    following.sort()
    if following and at > following[(len(following) - 1) // 2] + HOUR_S:
        return max(following[0], now)  # its sender's clock is wrong
    return at


def replay(
    lines: Iterable[bytes],
    policy: PolicyVersion,
    owners: Iterable[OwnersVersion] = (),
    *,
    progress: Callable[[int], None] = lambda n: None,
) -> Iterator[Told]:
    """Yield what each batch of the log has brought: of teams and their keys, then of the nodes above them.

    Args:
        progress: Called with the number of lines read.
    """
    book = RuleBook(1, [policy], owners)
    engine = Engine(book, EngineSettings(partitions=1, secrets=(SECRET,), dedupe_blocks=DEDUPE_BLOCKS))
    state, above = engine.new_state(0, 1), Above(book, SECRET)
    for run in _runs(log_of(lines)):
        outcome = engine.step(state, run)
        told = _told(outcome, run)
        for hop in above.take(outcome, _moments(run)):
            told.add(hop)
        yield told
        progress(max(record.line for record in run.records))


def _runs(records: Iterator[Record]) -> Iterator[Run[Record]]:
    held: list[Record] = []
    first = 0
    for record in records:
        held.append(record)
        if len(held) == BATCH:
            yield Run(held, first, USAGE.name)
            first, held = first + BATCH, []
    if held:
        yield Run(held, first, USAGE.name)


def _moments(run: Run[Record]) -> Iterator[float]:
    """Yield moments of a run a minute or more apart: a step may span days, and parents hear of no tick in it."""
    last = run.records[0].at
    for record in run.records:
        if record.at >= last + PARENTS_S:
            last = record.at
            yield last


def _told(outcome: Outcome, run: Run[Record]) -> Told:
    told = Told(late=sum(record.late for record in run.records))
    told.add(outcome)
    for record in outcome.records:
        if record.topic == USAGE_DLQ.name:
            headers: dict[str, Any] = dict(record.headers)
            place = int(headers["sb-origin"].rsplit(b"/", 1)[1]) - run.first
            told.bad.append((run.records[place].line, headers.get("sb-message", b"").decode(errors="replace")))
    return told


def _ticks(now: float, until: float) -> Iterator[Record]:
    at = now
    while (at := at + next(every for lasts, every in TICKING if at - now < lasts)) < until:
        yield Record(b"", at)


def time_of(line: bytes) -> float | None:
    """Return the event time of a line; None for one that has none."""
    try:
        at = orjson.loads(line)["time"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if isinstance(at, int | float):
        return float(at) if 0 <= at < 4e9 else None
    try:
        return decode_usage_json(line).time
    except BadRecord:
        return None
