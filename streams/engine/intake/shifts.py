"""Price fixes: money that moves what was spent in minutes that are over. No calls and no tokens come with it."""

import numpy as np
from xxhash import xxh3_64_intdigest

from spendbrake.schemas.money import MAX_EVENT, usd_text
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.apply import MINUTE_S, Rows
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.columns import from_events
from spendbrake.streams.engine.intake.sorter import Shift
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState

OLDEST_S = 60 * 86_400.0
"""What is older has left the rings (62 days, less what a clock ahead may push out)."""


class Shifts:
    """Turns price fixes into rows of sign 0, each once by its id."""

    def __init__(self, state: PartitionState, routes: Routes, emit: Emitter) -> None:
        self.state, self.routes, self.emit = state, routes, emit

    def rows(self, shift: Shift, offset: int, now: float) -> Rows | None:
        """Return the rows of one fix; None where it moves nothing here: refused, or applied before."""
        try:
            if not self._first(shift, offset):
                return None
            rows = self._rows(shift, offset, now)
        except BadRecord as bad:
            if offset > self.state.replayed:
                self.emit.dead(shift.place, now, "shift", bad.reason, bad.field, str(bad))
            return None
        self.state.fingerprints.record(np.array([mark_of(shift.delta.id)], np.uint64), np.array([offset]))
        return rows

    def _first(self, shift: Shift, offset: int) -> bool:
        """Tell whether a fix is the first to come under its id."""
        seen, own = self.state.fingerprints, mark_of(shift.delta.id)
        if offset <= seen.applied:
            return seen.counted_at(offset) == own
        if seen.seen_at(own) >= 0:
            self.emit.count("duplicates")
            return False
        return True

    def _rows(self, shift: Shift, offset: int, now: float) -> Rows:
        delta = shift.delta
        if shift.home != delta.team or partition_of(delta.team.encode(), self.routes.partitions) != self.state.number:
            raise BadRecord("misplaced", "team", delta.team, f"the log of {shift.home!r} is not that of this team")
        oldest = min(delta.minutes, default=now) * MINUTE_S
        if oldest <= now - OLDEST_S:
            raise BadRecord("bad_time", "minutes", oldest, f"too old against the log's clock {now:.3f}")
        for minute, amount in delta.minutes.items():
            if abs(amount) > MAX_EVENT:
                raise BadRecord("bad_amount", f"minutes.{minute}", amount, f"more than {usd_text(MAX_EVENT)} at once")
        # What takes away comes first: no amount on the way is one that never stood.
        cells = sorted(delta.minutes.items(), key=lambda cell: (cell[1], cell[0]))
        part = from_events([(shift.place, _event(shift, minute), delta.team) for minute, _ in cells])
        route = self.routes.resolve(part, np.full(len(part), now))
        if (self.routes.team[route] < 0).any():
            raise BadRecord("misplaced", "team", delta.team, "the tree in force has its home elsewhere")
        n, none = len(part), np.zeros(len(part), np.int64)
        return Rows(
            place=part.place,
            offset=np.full(n, offset),
            now=np.full(n, now),
            at=part.at,
            route=route,
            sign=none,
            cost=np.array([amount for _, amount in cells], np.int64),
            error=none,
            input_tokens=none,
            cache_read_tokens=none,
            cache_write_tokens=none,
            output_tokens=none,
            session=np.zeros(n, np.uint64),
        )


def mark_of(delta: str) -> int:
    """Return the fingerprint of a price fix: no event has it, whatever its producer calls it."""
    return xxh3_64_intdigest(f"delta\0{delta}".encode()) or 1


def _event(shift: Shift, minute: int) -> UsageEvent:
    """Return a call of one minute under the names of a fix: whose it is decides which series are moved."""
    delta = shift.delta
    return UsageEvent(
        request_id=delta.id,
        time=float(minute * MINUTE_S),
        api_key_id=delta.key,
        provider=delta.provider,
        model=delta.model,
        team=delta.team,
        project=delta.project or None,
        environment=delta.environment or None,
    )
