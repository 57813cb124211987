"""Corrections: the original goes out, priced at its own time, and its replacement comes in. Rare, so one by one."""

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.columns import Part, fingerprint_of, from_events
from spendbrake.streams.engine.intake.sorter import Correction
from spendbrake.streams.engine.rules.routes import Route, Routes
from spendbrake.streams.engine.state.partition import PartitionState

Signed = tuple[int, UsageEvent, str | None, int]
"""(place, event, team it was forwarded to, sign)."""


def unplaced_mark(fingerprint: int) -> int:
    """Return the mark of an event that was counted apart from the rings, as its correction must be."""
    return xxh3_64_intdigest(b"unplaced\0" + fingerprint.to_bytes(8, "big")) or 1


class Corrections:
    """Turns corrections into events of either sign, and remembers which originals are spent.

    Args:
        offsets: Of the batch, with `now`, the clock at each.
    """

    def __init__(
        self,
        state: PartitionState,
        routes: Routes,
        emit: Emitter,
        offsets: NDArray[np.int64],
        now: NDArray[np.float64],
    ) -> None:
        self.state, self.routes, self.emit = state, routes, emit
        self.offsets, self.now = offsets, now

    def signed(self, corrections: list[Correction]) -> tuple[Part, NDArray[np.int64], NDArray[np.bool_]]:
        """Return the events that corrections add and take away, the sign of each, and which never were in the rings."""
        found: list[Signed] = []
        for each in corrections:
            found += self._one(each)
        part = from_events([(place, event, team) for place, event, team, _ in found])
        sign = np.array([sign for *_, sign in found], np.int64)
        marks = self.state.fingerprints.marks
        apart = [sign < 0 and unplaced_mark(_of(event)) in marks for _, event, _, sign in found]
        return part, sign, np.array(apart, np.bool_)

    def _one(self, one: Correction) -> list[Signed]:
        """Return what one correction adds and takes away here.

        It goes home by its original's owner. If its replacement has another home it goes there too, for that part.
        """
        offset, clock = int(self.offsets[one.place]), float(self.now[one.place])
        new = self._route(one, one.event, clock)
        old = self._route(one, one.original, clock)
        if not old.rows:
            if one.team is not None and new.rows:
                return self._added(one, offset)
            self._forward(one, old, clock)
            return []
        if not self._first(one, offset) or not self._replaces(one, offset, clock):
            return []
        self._enter(one, offset)
        added: list[Signed] = [(one.place, one.event, None, 1)] if new.rows else []
        if not new.rows:
            self._forward(one, new, clock)
        if self.state.fingerprints.marks.get(_of(one.original)) == offset:
            return added
        return [(one.place, one.original, one.team, -1), *added]

    def _added(self, one: Correction, offset: int) -> list[Signed]:
        """Return the replacement of an original that another partition takes away."""
        if not self._first(one, offset):
            return []
        self._enter(one, offset)
        return [(one.place, one.event, one.team, 1)]

    def _enter(self, one: Correction, offset: int) -> None:
        self.state.fingerprints.record(np.array([_of(one.event)], np.uint64), np.array([offset]))

    def _route(self, one: Correction, event: UsageEvent, now: float) -> Route:
        return self.routes.one(from_events([(one.place, event, None)]), now)

    def _first(self, one: Correction, offset: int) -> bool:
        """Tell whether a correction is the first to come under its id."""
        seen, own = self.state.fingerprints, _of(one.event)
        if offset <= seen.applied:
            return seen.counted_at(offset) == own
        if seen.seen_at(own) >= 0:
            self.emit.count("duplicates")
            return False
        return True

    def _replaces(self, one: Correction, offset: int, clock: float) -> bool:
        """Tell whether the original can be replaced, and see to it that it is only once."""
        seen, first = self.state.fingerprints, _of(one.original)
        if offset <= seen.applied:
            return True
        spent = xxh3_64_intdigest(b"replaced\0" + first.to_bytes(8, "big")) or 1
        counted = seen.seen_at(first)
        reason = ""
        if spent in seen.marks:
            reason = "already_replaced"
        elif counted < 0 and one.original.time <= seen.oldest_at(offset):
            reason = "unmatched"
        if reason:
            self._refuse(one, clock, offset, reason)
            return False
        seen.mark(spent, offset)
        if counted < 0:
            seen.mark(first, offset)  # the original is dropped when it comes
        return True

    def _forward(self, one: Correction, route: Route, clock: float) -> None:
        if self.offsets[one.place] > self.state.replayed:
            self.emit.forward(one.place, clock, route.team_id, route.home)

    def _refuse(self, one: Correction, clock: float, offset: int, reason: str) -> None:
        if offset > self.state.replayed:
            name = f"{one.original.source}/{one.original.request_id}"
            why = f"original {name}: {reason.replace('_', ' ')}"
            self.emit.dead(one.place, clock, "correct", reason, "replaces", why)


def _of(event: UsageEvent) -> int:
    return fingerprint_of(event.source, event.request_id)
