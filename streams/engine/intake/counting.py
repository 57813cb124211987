"""Which events of a piece of the log count here, and for how much: at home, not seen before, placed in time, priced."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.money import MAX_EVENT, usd_text
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.engine.apply import Rows
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.columns import NO_COST, Part, concat, fingerprint_of, from_events
from spendbrake.streams.engine.intake.corrections import Corrections, unplaced_mark
from spendbrake.streams.engine.intake.shifts import Shifts
from spendbrake.streams.engine.intake.sorter import Correction, Intake, Shift
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Witness: TypeAlias = Callable[[Rows, NDArray[np.bool_], Routes, bool], None]
"""Is shown what is counted: rows, which of them the price book has priced, their routes, whether they have no place."""

FUTURE_S = 600.0
"""An event further ahead of the log's clock has a broken clock behind it."""
PAST_S = 60 * 86_400.0
"""An event older than this has no place in the rings (62 days, less what a clock ahead may push out)."""


class Counting:
    """Counts the events of a batch.

    Args:
        offsets: Of the batch, with `now`, the clock at each.

    Attributes:
        apart: What was counted, and has no place in the rings by its time.
    """

    def __init__(
        self,
        state: PartitionState,
        rules: Rules,
        routes: Routes,
        emit: Emitter,
        offsets: I64,
        now: F64,
        witness: Witness | None = None,
    ) -> None:
        self.state, self.rules, self.routes, self.emit = state, rules, routes, emit
        self.offsets, self.now, self.witness = offsets, now, witness
        self.corrections = Corrections(state, routes, emit, offsets, now)
        self.apart: list[Rows] = []
        self.shifts = Shifts(state, routes, emit)

    def block(self, intake: Intake, begin: int, end: int) -> Rows:
        """Return what counts of the records `[begin, end)` of the batch, which lie in one block of fingerprints."""
        part, corrections = intake.events, intake.corrections
        if begin > 0 or end < len(self.offsets):
            part = part.take((part.place >= begin) & (part.place < end))
            corrections = [one for one in corrections if begin <= one.place < end]
        first, last, seen = int(self.offsets[begin]), int(self.offsets[end - 1]), self.state.fingerprints
        seen.begin(first, last, float(self.now[begin]))
        shifts = [shift for shift in intake.shifts if begin <= shift.place < end]
        rows = self._among(part, corrections, shifts) if shifts else self._rows(part, corrections)
        seen.close(last)
        return rows

    def _rows(self, part: Part, corrections: list[Correction]) -> Rows:
        if not corrections:
            return self._plain(part)
        self._meet(part, corrections)
        if not _entangled(part, corrections):
            return self._plain(part).merged(self._corrected(corrections))
        begin, rows = -1, self._plain(part.take(np.zeros(0, np.int64)))
        for one in corrections:
            between = part.take((part.place > begin) & (part.place < one.place))
            rows = rows.merged(self._plain(between)).merged(self._corrected([one]))
            begin = one.place
        return rows.merged(self._plain(part.take(part.place > begin)))

    def _among(self, part: Part, corrections: list[Correction], shifts: list[Shift]) -> Rows:
        """Return rows in the order of the log: a name that a price fix brings first has come first."""
        after, rows = -1, self._plain(part.take(np.zeros(0, np.int64)))
        for shift in shifts:
            rows = self._shifted(rows.merged(self._span(part, corrections, after, shift.place)), shift)
            after = shift.place
        return rows.merged(self._span(part, corrections, after, len(self.offsets)))

    def _span(self, part: Part, corrections: list[Correction], after: int, end: int) -> Rows:
        part = part.take((part.place > after) & (part.place < end))
        return self._rows(part, [one for one in corrections if after < one.place < end])

    def _shifted(self, rows: Rows, shift: Shift) -> Rows:
        """Return rows with those of a price fix among them; of one apart, with nothing more."""
        more = self.shifts.rows(shift, int(self.offsets[shift.place]), float(self.now[shift.place]))
        if more is None:
            return rows
        if self.witness is not None:
            self.witness(more, np.zeros(len(more), np.bool_), self.routes, shift.apart)
        if not shift.apart:
            return rows.merged(more)
        self.apart.append(more)
        self._count_apart(more)
        return rows

    def _meet(self, part: Part, corrections: list[Correction]) -> None:
        """Work out the routes of all in the order of the log: the first to come gets a place that is limited."""
        named = from_events([(one.place, each, None) for one in corrections for each in (one.event, one.original)])
        both = concat([part, named])
        self.routes.resolve(both, self.now[both.place])

    def _plain(self, part: Part) -> Rows:
        route = self.routes.resolve(part, self.now[part.place])
        here = self.routes.team[route] >= 0
        if not here.all():
            self._forward(part.place[~here], route[~here])
            part, route = part.take(here), route[here]
        cost = self._cost(part, route)
        if (dear := cost > MAX_EVENT).any():
            self._too_dear(part.place[dear], cost[dear], "cost_usd")
            part, route, cost = part.take(~dear), route[~dear], cost[~dear]
        seen, offset = self.state.fingerprints, self.offsets[part.place]
        double = seen.duplicates(part.fingerprint, offset)
        if double.any():
            self.emit.count("duplicates", n=int(double.sum()))
            part, route, offset, cost = part.take(~double), route[~double], offset[~double], cost[~double]
        seen.record(part.fingerprint, offset)
        self.emit.count("events", n=len(part))
        apart = np.zeros(len(part), np.bool_)
        return self._placed(part, self._as_rows(part, route, cost, np.ones(len(part), np.int64)), apart)

    def _corrected(self, corrections: list[Correction]) -> Rows:
        part, sign, apart = self.corrections.signed(self._affordable(corrections))
        route = self.routes.resolve(part, self.now[part.place])
        rows = self._as_rows(part, route, self._cost(part, route), sign)
        rows.session[:] = 0
        return self._placed(part, rows, apart)

    def _affordable(self, corrections: list[Correction]) -> list[Correction]:
        """Return the corrections of which neither side is too dear; the others are refused whole."""
        kept = []
        for one in corrections:
            sides = from_events([(one.place, one.event, None), (one.place, one.original, None)])
            cost = self._cost(sides, self.routes.resolve(sides, self.now[sides.place]))
            dear = np.flatnonzero(cost > MAX_EVENT)[:1]
            if len(dear):
                self._too_dear(sides.place[dear], cost[dear], ("cost_usd", "replaces.cost_usd")[int(dear[0])])
            else:
                kept.append(one)
        return kept

    def _too_dear(self, place: I64, cost: I64, field: str) -> None:
        """Refuse what costs more by the price book than one event may; of a producer's own price decoding has."""
        for i, nano in zip(place.tolist(), cost.tolist(), strict=True):
            if self.offsets[i] > self.state.replayed:
                why = f"{usd_text(nano)} by the price book, more than {usd_text(MAX_EVENT)} for one event"
                bad = BadRecord("bad_amount", field, nano, why)
                self.emit.dead(i, float(self.now[i]), "price", bad.reason, bad.field, str(bad))

    def _forward(self, place: I64, route: I64) -> None:
        for i, r in zip(place.tolist(), route.tolist(), strict=True):
            if self.offsets[i] > self.state.replayed:
                known = self.routes.routes[r]
                self.emit.forward(i, float(self.now[i]), known.team_id, known.home)

    def _as_rows(self, part: Part, route: I64, cost: I64, sign: I64) -> Rows:
        self.emit.count("unpriced", n=self._unpriced(part, route))
        plain = len(sign) == 0 or bool((sign > 0).all())
        times = 1 if plain else sign
        return Rows(
            place=part.place,
            offset=self.offsets[part.place],
            now=self.now[part.place],
            at=part.at,
            route=route,
            sign=sign,
            cost=cost * times,
            error=part.error.astype(np.int64) * times,
            input_tokens=part.input_tokens * times,
            cache_read_tokens=part.cache_read_tokens * times,
            cache_write_tokens=part.cache_write_tokens * times,
            output_tokens=part.output_tokens * times,
            session=part.session,
        )

    def _cost(self, part: Part, route: I64) -> I64:
        """Return the cost of each event, nano-USD: as billed by its producer, else by the price book."""
        billed = part.cost != NO_COST
        if billed.all():
            return part.cost
        tokens = (part.input_tokens, part.cache_read_tokens, part.cache_write_tokens, part.output_tokens)
        return np.where(billed, part.cost, self.rules.prices.cost(self.routes.rate[route], part.at, *tokens))

    def _unpriced(self, part: Part, route: I64) -> int:
        """Return how many events neither their producer nor the price book has a price of."""
        booked = part.cost == NO_COST
        if not booked.any():
            return 0
        unknown = self.rules.prices.unpriced(self.routes.rate[route], part.at) | part.units
        return int((unknown & booked).sum())

    def _placed(self, part: Part, rows: Rows, apart: NDArray[np.bool_]) -> Rows:
        """Take out what has no place in the rings by its time: its money is counted apart."""
        if not len(rows):
            return rows
        oldest = np.maximum(rows.now - PAST_S, self.state.fingerprints.oldest_at(int(rows.offset[0])))
        old, future = rows.at <= oldest, rows.at > rows.now + FUTURE_S
        lost = old | future | apart
        if not lost.any():
            return self._witnessed(part, rows)
        self.apart.append(rows.take(lost))
        self._count_apart(self.apart[-1])
        self._witnessed(part.take(lost), self.apart[-1], apart=True)
        for i in np.flatnonzero(lost & (rows.sign > 0)).tolist():
            offset, fingerprint = int(rows.offset[i]), int(part.fingerprint[i])
            if offset > self.state.fingerprints.applied:
                self.state.fingerprints.mark(unplaced_mark(fingerprint), offset)
            if offset > self.state.replayed:
                reason = "unplaced_future" if future[i] else "unplaced_old"
                why = f"event time {rows.at[i]:.3f} against the log's clock {rows.now[i]:.3f}"
                self.emit.dead(int(rows.place[i]), float(rows.now[i]), "place", reason, "time", why)
        return self._witnessed(part.take(~lost), rows.take(~lost))

    def _witnessed(self, part: Part, rows: Rows, *, apart: bool = False) -> Rows:
        if self.witness is not None:
            self.witness(rows, part.cost == NO_COST, self.routes, apart)
        return rows

    def _count_apart(self, rows: Rows) -> None:
        teams = self.state.teams
        team = self.routes.team[rows.route]
        fresh = rows.offset > teams.seen[team]
        np.add.at(teams.unplaced, team[fresh], rows.cost[fresh])
        np.add.at(teams.n_unplaced, team[fresh], rows.sign[fresh])
        self.state.series.dirty[teams.series[team]] = True


def _entangled(part: Part, corrections: list[Correction]) -> bool:
    """Tell whether events of a piece share ids with its corrections: then they must be taken one after the other."""
    events = [event for one in corrections for event in (one.event, one.original)]
    ids = np.array([fingerprint_of(event.source, event.request_id) for event in events], np.uint64)
    return bool(np.isin(part.fingerprint, ids).any())
