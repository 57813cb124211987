"""The burn engine: `Engine.step(state, batch) -> Outcome`, a pure function of the log.

Deterministic, and blind to how the log is cut into batches: what depends on order is located to its record. No
clock, no I/O; an exception means a defect and must end the process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.topics import USAGE
from spendbrake.streams.engine.apply import Rows
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.columns import NO_COST, Part
from spendbrake.streams.engine.intake.corrections import Corrections
from spendbrake.streams.engine.intake.sorter import Intake, Sorter, places
from spendbrake.streams.engine.outcome import Batch, Outcome, OutRecord
from spendbrake.streams.engine.rollups import due, rollups
from spendbrake.streams.engine.rules.book import RuleBook, Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.segment import SEGMENT_S, Segment
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

FUTURE_S = 600.0
"""An event further ahead of the log's clock has a broken clock behind it."""
PAST_S = 60 * 86_400.0
"""An event older than this has no place in the rings (62 days, less what a clock ahead may push out)."""
ROUTES_KEPT = 200_000
"""Combinations of names remembered; past that they are worked out anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine is told once.

    Attributes:
        partitions: Of the usage topic, fixed for life.
        secrets: Keys of internal records' signatures; the first one signs.
        dedupe_blocks: Length of the ring of fingerprints, in blocks of 4,096 offsets.
    """

    partitions: int
    secrets: tuple[bytes, ...]
    dedupe_blocks: int = 64


class Engine:
    """Steps partitions of the usage log."""

    def __init__(self, book: RuleBook, settings: EngineSettings) -> None:
        self.book, self.settings = book, settings
        self.sorter = Sorter(USAGE.name, settings.secrets)
        self._routes: dict[int, Routes] = {}

    def new_state(self, number: int, epoch: int) -> PartitionState:
        """Return the state of a partition whose log begins."""
        return PartitionState(number, epoch, self.settings.dedupe_blocks)

    def forget(self, number: int) -> None:
        """Drop what is kept beside the state of a partition that was given up."""
        self._routes.pop(number, None)

    def step(self, state: PartitionState, batch: Batch, schemas: Mapping[int, Any] | None = None) -> Outcome:
        """Apply a batch to the state; return what to send.

        Args:
            batch: Joins the last one: its first offset is the next that the log holds after `state.applied`.
            schemas: Foreign Avro schemas by id.
        """
        offsets, stamps = places(batch)
        now = np.maximum.accumulate(np.concatenate([[state.now], stamps]))[1:]
        outcome = Outcome(last=int(offsets[-1]), now=float(now[-1]))
        emit = Emitter(outcome, batch, USAGE.name, self.settings.secrets[0])
        intake = self.sorter.sort(batch, schemas)
        self._refuse(state, intake, offsets, now, emit)
        state.fingerprints.begin(offsets, now)
        for begin, end, rules in self._spans(now):
            self._span(state, rules, intake, offsets, now, begin, end, emit, schemas)
        state.fingerprints.close()
        state.applied, state.now = int(offsets[-1]), float(now[-1])
        if due(state, state.now):
            outcome.records += self.flush(state)
        outcome.wants_tick = state.waits()
        return outcome

    def flush(self, state: PartitionState) -> list[OutRecord]:
        """Return what parents must still be told: to be sent, and acknowledged, before rows are copied."""
        if not state.touched:
            return []
        stamp = Stamp(epoch=state.epoch, offset=state.applied)
        return rollups(state, self.book.at(state.now), state.now, stamp, self.settings.secrets[0])

    def _spans(self, now: F64) -> list[tuple[int, int, Rules]]:
        """Cut a batch where the rules change."""
        spans, begin = [], 0
        while begin < len(now):
            change = self.book.next_change(float(now[begin]))
            end = int(np.searchsorted(now, change, side="left"))
            spans.append((begin, end, self.book.at(float(now[begin]))))
            begin = end
        return spans

    def _refuse(self, state: PartitionState, intake: Intake, offsets: I64, now: F64, emit: Emitter) -> None:
        for place, bad in sorted(intake.bad, key=lambda pair: pair[0]):
            if offsets[place] > state.emitted:
                emit.dead(place, float(now[place]), "decode", bad.reason, bad.field, str(bad))
        for place, kind in intake.internal:
            if kind != "tick" and offsets[place] > state.emitted:
                emit.dead(
                    place, float(now[place]), "dispatch", "unsupported_kind", "sb-kind", f"nothing here takes {kind!r}"
                )

    def _span(
        self,
        state: PartitionState,
        rules: Rules,
        intake: Intake,
        offsets: I64,
        now: F64,
        begin: int,
        end: int,
        emit: Emitter,
        schemas: Mapping[int, Any] | None,
    ) -> None:
        """Apply the records `[begin, end)` of a batch, all under one version of the rules."""
        routes = self._routes_for(state, rules)
        routes.schemas = schemas
        part = intake.events
        if begin > 0 or end < len(now):
            part = part.take((part.place >= begin) & (part.place < end))
        rows = self._rows(state, rules, routes, part, offsets, now, emit)
        corrections = [(i, e) for i, e in intake.corrections if begin <= i < end]
        if corrections:
            more = Corrections(state, rules, routes, emit).rows(corrections, offsets, now)
            rows = _merge(rows, more)
        for first, last in _cuts(now, begin, end):
            chosen = rows.take((rows.place >= first) & (rows.place < last)) if last - first < len(now) else rows
            Segment(state, rules, routes, emit, offsets[first:last], now[first:last], first).run(chosen)

    def _routes_for(self, state: PartitionState, rules: Rules) -> Routes:
        routes = self._routes.get(state.number)
        stale = routes is None or routes.state is not state or routes.rules is not rules
        if routes is None or stale or len(routes.routes) > ROUTES_KEPT:
            routes = self._routes[state.number] = Routes(state, rules, self.book, self.settings.partitions)
        return routes

    def _rows(
        self,
        state: PartitionState,
        rules: Rules,
        routes: Routes,
        part: Part,
        offsets: I64,
        now: F64,
        emit: Emitter,
    ) -> Rows:
        """Return the events that count here: at home, not seen before, placed in time, priced."""
        route = routes.resolve(part)
        here = routes.team[route] >= 0
        if not here.all():
            self._forward(state, routes, part.place[~here], route[~here], offsets, now, emit)
            part, route = part.take(here), route[here]
        offset = offsets[part.place]
        double = state.fingerprints.duplicates(part.fingerprint, offset)
        if double.any():
            emit.count("duplicates", n=int(double.sum()))
            part, route, offset = part.take(~double), route[~double], offset[~double]
        state.fingerprints.record(part.fingerprint, offset)
        cost = price(rules, routes, part, route, emit)
        rows = _as_rows(part, route, offset, now[part.place], cost)
        emit.count("events", n=len(rows))
        return self._placed(state, routes, rows, emit)

    def _forward(
        self, state: PartitionState, routes: Routes, place: I64, route: I64, offsets: I64, now: F64, emit: Emitter
    ) -> None:
        for i, r in zip(place.tolist(), route.tolist(), strict=True):
            if offsets[i] > state.emitted:
                emit.forward(i, float(now[i]), routes.routes[r].team_id, routes.routes[r].home)

    def _placed(self, state: PartitionState, routes: Routes, rows: Rows, emit: Emitter) -> Rows:
        """Take out events whose time has no place in the rings: their money is counted apart."""
        oldest = np.maximum(rows.now - PAST_S, state.fingerprints.oldest_at(rows.offset))
        old, future = rows.at <= oldest, rows.at > rows.now + FUTURE_S
        lost = old | future
        if not lost.any():
            return rows
        team = routes.team[rows.route[lost]]
        counted = rows.offset[lost] > state.teams.seen[team]
        np.add.at(state.teams.unplaced, team[counted], rows.cost[lost][counted])
        np.add.at(state.teams.n_unplaced, team[counted], 1)
        state.series.dirty[state.teams.series[team]] = True
        for i in np.flatnonzero(lost & (rows.offset > state.emitted)).tolist():
            reason = "unplaced_future" if future[i] else "unplaced_old"
            why = f"event time {rows.at[i]:.3f} against the log's clock {rows.now[i]:.3f}"
            emit.dead(int(rows.place[i]), float(rows.now[i]), "place", reason, "time", why)
        return rows.take(~lost)


def price(rules: Rules, routes: Routes, part: Part, route: I64, emit: Emitter) -> I64:
    """Return the cost of each event, nano-USD: as billed by its producer, else by the price book."""
    rate = routes.rate[route]
    tokens = (part.input_tokens, part.cache_read_tokens, part.cache_write_tokens, part.output_tokens)
    cost = rules.prices.cost(rate, part.at, *tokens)
    billed = part.cost != NO_COST
    unpriced = (rules.prices.unpriced(rate, part.at) | part.units) & ~billed
    emit.count("unpriced", n=int(unpriced.sum()))
    return np.where(billed, part.cost, cost)


def _as_rows(part: Part, route: I64, offset: I64, now: F64, cost: I64) -> Rows:
    return Rows(
        place=part.place,
        offset=offset,
        now=now,
        at=part.at,
        route=route,
        sign=np.ones(len(part), np.int64),
        cost=cost,
        error=part.error.astype(np.int64),
        input_tokens=part.input_tokens,
        cache_read_tokens=part.cache_read_tokens,
        cache_write_tokens=part.cache_write_tokens,
        output_tokens=part.output_tokens,
        session=part.session,
    )


def _merge(rows: Rows, more: Rows) -> Rows:
    columns = {name: np.concatenate([getattr(rows, name), getattr(more, name)]) for name in Rows.__slots__}
    both = Rows(**columns)
    return both.take(np.argsort(both.place, kind="stable"))


def _cuts(now: F64, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut records `[begin, end)` on the grid of segments: no ring is passed over within one, no hour or day ends."""
    grid = np.floor(now[begin:end] / SEGMENT_S)
    edges = np.flatnonzero(np.diff(grid)) + begin + 1
    bounds = [begin, *edges.tolist(), end]
    return list(pairwise(bounds))
