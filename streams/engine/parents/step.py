"""`ParentsEngine.step(state, batch) -> Outcome`: the rollups log, record by record. Pure: no clock, no I/O.

Record by record, so how the log is cut into batches changes nothing; the log is thin, for the usage engine tells of a
parent four times a second at the most.
"""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.command import KIND_HEADER, Command
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.envelope import kind_of, open_internal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.orders import refusal_of
from spendbrake.streams.engine.outcome import Batch, Outcome, Walk, walked
from spendbrake.streams.engine.parents.judge import Judge
from spendbrake.streams.engine.parents.merge import merge, read
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.rules.book import RuleBook


class ParentsEngine:
    """Steps partitions of the rollups log.

    Args:
        secrets: Keys of internal records' signatures; the first one signs.
    """

    def __init__(self, book: RuleBook, partitions: int, secrets: tuple[bytes, ...]) -> None:
        self.book, self.partitions, self.secrets = book, partitions, secrets

    def new_state(self, number: int, epoch: int) -> ParentsState:
        """Return the state of a partition whose log begins."""
        return ParentsState(number, epoch)

    def step(self, state: ParentsState, batch: Batch, schemas: Mapping[int, Any] | None = None) -> Outcome:
        """Apply a batch to the state; return what to send.

        Args:
            batch: Joins the last one: its first offset is the next that the log holds after `state.applied`.
            schemas: Taken for the sake of one signature with the usage engine; rollups have the bundled one.
        """
        return walked(self.walk(state, batch, schemas))

    def walk(self, state: ParentsState, batch: Batch, schemas: Mapping[int, Any] | None = None) -> Walk:
        """Do what `step` does, with a pause before each record but the first: a rollup may tell of thousands."""
        outcome = Outcome(last=state.applied, now=state.now)
        emit = Emitter(outcome, batch, ROLLUPS.name, self.secrets[0])
        judge = Judge(state, emit, self.secrets[0])
        for place, (offset, stamp_ms) in enumerate(zip(batch.offsets, batch.timestamps_ms, strict=True)):
            before = self.book.at(state.now)
            if place:
                yield
            state.now = max(state.now, stamp_ms / 1_000)
            judge.come(self.book.at(state.now), before, offset, state.now)
            judge.burn()
            try:
                self._apply(batch, place, state, judge)
            except BadRecord as bad:
                if offset > state.emitted:
                    emit.dead(place, state.now, "decode", bad.reason, bad.field, str(bad))
            judge.wake()
            state.applied = offset
        outcome.last, outcome.now, outcome.wants_tick = state.applied, state.now, state.waits()
        return outcome

    def _apply(self, batch: Batch, place: int, state: ParentsState, judge: Judge) -> None:
        told = self._read(batch, place)
        if isinstance(told, Command):
            self._order(told, batch.keys[place] or b"", state, judge, batch.offsets[place])
        elif told is not None:
            self._merge(told, state, judge)

    def _order(self, command: Command, key: bytes, state: ParentsState, judge: Judge, offset: int) -> None:
        if partition_of(key, self.partitions) != state.number:
            raise BadRecord("misplaced", "node", command.node, "its log is not this partition")
        try:
            judge.order(judge.parent(key.decode(errors="replace")), command)
        except BadRecord as bad:
            if offset > state.emitted:
                judge.emit.finding(refusal_of(command, bad, state.now))
            raise

    def _merge(self, rollup: Rollup, state: ParentsState, judge: Judge) -> None:
        if partition_of(rollup.parent.encode(), self.partitions) != state.number:
            raise BadRecord("misplaced", "parent", rollup.parent, f"its log is not partition {state.number}")
        try:
            told, period = read(rollup), judge.period(rollup.calendar)
        except (ValueError, LookupError) as error:
            raise BadRecord("bad_type", "calendar", rollup.calendar, str(error)) from None
        parent = judge.parent(rollup.parent)
        judge.changed(parent, rollup.calendar, merge(parent, rollup.calendar, told, period, state.now))

    def _read(self, batch: Batch, place: int) -> Rollup | Command | None:
        """Return the rollup or the command in a record, None for a tick."""
        key, value, headers = batch.keys[place], batch.values[place], batch.headers[place]
        kind = kind_of(headers)
        if kind is None:
            raise BadRecord("forged", KIND_HEADER, None, "only the service writes here")
        open_internal(kind, ROLLUPS.name, key, value, headers, self.secrets)
        if kind == "tick":
            return None
        if kind == "command":
            return decode(Command, value or b"")
        if kind != "rollup":
            raise BadRecord("unknown_kind", KIND_HEADER, kind, "neither a rollup, a command nor a tick")
        return decode(Rollup, value or b"")
