"""The burn engine: `Engine.step(state, batch) -> Outcome`, a pure function of the log.

Deterministic, and blind to how the log is cut into batches: what depends on order is located to its record. No
clock, no I/O; an exception means a defect and must end the process.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.avro import bundled_schemas
from spendbrake.streams.engine.apply import joined
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.counting import Counting, Witness
from spendbrake.streams.engine.intake.sorter import Intake, Sorter, places
from spendbrake.streams.engine.judge.tiering import Tiering
from spendbrake.streams.engine.outcome import Batch, Outcome, OutRecord, Walk, walked
from spendbrake.streams.engine.rollups import due, rollups
from spendbrake.streams.engine.rules.book import RuleBook, Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.segment import SEGMENT_S, Segment
from spendbrake.streams.engine.state.fingerprints import BLOCK
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

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
    """Steps partitions of the usage log.

    Args:
        witness: Is shown what each step counts; for who recounts a log.
    """

    def __init__(self, book: RuleBook, settings: EngineSettings, witness: Witness | None = None) -> None:
        self.book, self.settings, self.witness = book, settings, witness
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
        return walked(self.walk(state, batch, schemas))

    def walk(self, state: PartitionState, batch: Batch, schemas: Mapping[int, Any] | None = None) -> Walk:
        """Do what `step` does with pauses: after a long silence one record may close the buckets of all teams.

        Between two pauses the state is in the middle of a step: it must be walked to the end, or be thrown away.
        """
        offsets, stamps = places(batch)
        now = np.maximum.accumulate(np.concatenate([[state.now], stamps]))[1:]
        outcome = Outcome(last=int(offsets[-1]), now=float(now[-1]))
        emit = Emitter(outcome, batch, USAGE.name, self.settings.secrets[0])
        if state.numbered_by is None:
            at = state.now or float(now[0])
            Tiering(state, self.book.at(at)).prime(at)
        intake = self.sorter.sort(batch, schemas)
        self._refuse(state, intake, offsets, now, emit)
        for begin, end in self._pieces(now, intake):
            yield from self._piece(state, intake, offsets, now, begin, end, emit, schemas)
            state.applied, state.now = int(offsets[end - 1]), float(now[end - 1])
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

    def _pieces(self, now: F64, intake: Intake) -> list[tuple[int, int]]:
        """Cut a batch where the rules change, at commands, and on the grid.

        So no ring is passed over within a piece, and no hour, day or period ends there.
        """
        grid = np.floor(now / SEGMENT_S)
        cuts = set((np.flatnonzero(np.diff(grid) > 0) + 1).tolist())
        cuts |= {order.place for order in intake.orders if order.place}
        change = self.book.next_change(float(now[0]))
        while change <= now[-1]:
            cuts.add(int(np.searchsorted(now, change, side="left")))
            change = self.book.next_change(change)
        return list(pairwise([0, *sorted(cuts), len(now)]))

    def _refuse(self, state: PartitionState, intake: Intake, offsets: I64, now: F64, emit: Emitter) -> None:
        for place, bad in sorted(intake.bad, key=lambda pair: pair[0]):
            if offsets[place] > state.replayed:
                emit.dead(place, float(now[place]), "decode", bad.reason, bad.field, str(bad))
        for place, kind in intake.internal:
            if kind != "tick" and offsets[place] > state.replayed:
                why = f"nothing here takes {kind!r}"
                emit.dead(place, float(now[place]), "dispatch", "unsupported_kind", "sb-kind", why)

    def _piece(
        self,
        state: PartitionState,
        intake: Intake,
        offsets: I64,
        now: F64,
        begin: int,
        end: int,
        emit: Emitter,
        schemas: Mapping[int, Any] | None,
    ) -> Iterator[None]:
        """Apply the records `[begin, end)` of a batch."""
        rules = self.book.at(float(now[begin]))
        routes = self._routes_for(state, rules)
        routes.schemas = {**bundled_schemas(), **schemas} if schemas else None
        routes.called = intake.events.called
        counting = Counting(state, rules, routes, emit, offsets, now, self.witness)
        rows = joined([counting.block(intake, first, last) for first, last in _blocks(offsets, begin, end)])
        apart = joined(counting.apart) if counting.apart else rows.take(np.zeros(0, np.int64))
        order = next((order for order in intake.orders if order.place == begin), None)
        segment = Segment(state, rules, routes, emit, offsets[begin:end], now[begin:end], begin)
        yield from segment.run(rows, apart, order)

    def _routes_for(self, state: PartitionState, rules: Rules) -> Routes:
        routes = self._routes.get(state.number)
        stale = routes is None or routes.state is not state or routes.rules is not rules
        if routes is None or stale or routes.owners_known != self.book.owners.count or len(routes.routes) > ROUTES_KEPT:
            routes = self._routes[state.number] = Routes(state, rules, self.book, self.settings.partitions)
        return routes


def _blocks(offsets: I64, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut the records `[begin, end)` where a block of fingerprints begins: the ring moves on by whole blocks."""
    if offsets[begin] // BLOCK == offsets[end - 1] // BLOCK:
        return [(begin, end)]
    cuts = np.flatnonzero(np.diff(offsets[begin:end] // BLOCK)) + begin + 1
    return list(pairwise([begin, *cuts.tolist(), end]))
