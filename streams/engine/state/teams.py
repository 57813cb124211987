"""What only whole teams have: fine rings in all metrics, open buckets, unplaced money. Arrays, a row a team."""

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from spendbrake.streams.engine.state.rings import Rings
from spendbrake.streams.engine.state.series import DAYS, HOURS, grown

I64 = NDArray[np.int64]
Closed = tuple[I64, I64, NDArray[np.float64]]
"""Team, bucket and moment of buckets that have closed."""

FINE_S = 10
FINE = 128
"""Cells of 10 s: room for a segment, what is `LATE` behind it, and events ten minutes ahead of the clock."""
LATE = 48
"""Buckets behind the clock from which on late money is only counted: its bucket is not shown again."""
MINUTES = 120
GRACE_S = 15.0
"""The watermark: a bucket closes this long after its end, by the log's clock."""
PHASES = 20
PHASE_S = 0.5
"""Teams close their buckets in turns of half a second, so that no step has to close all of them."""
NO_BUCKET = 2**62

TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
FINE_FIELDS = ("cost", "calls", "errors", *TOKENS)
"""Of a minute, and of 10 s, where `late` adds the money that came after a bucket closed and was not shown since."""
COARSE_FIELDS = ("errors", *TOKENS)


class TeamTable:
    """All teams of a partition whose home it is.

    Attributes:
        names: Node id of each team.
        series: Row of the team's own series.
        grace: Seconds after a bucket's end at which it closes: the watermark and the team's turn.
        open: Oldest bucket with calls that is not closed, NO_BUCKET when there is none; it closes at `close_at`.
        closed: Newest bucket with calls that was closed.
        due: When the head of the team wants the clock next, epoch seconds.
        floor: Bucket up to which all were closed when the row was stored.
        unplaced: Money outside every ring, nano-USD, and its number of events.
        judged: Offset up to which the head row as loaded has judged the log.
        seen: Offset up to which the rings as loaded hold it.
        stored: Offset at which the head row was last copied; -1 for never by this process.
    """

    def __init__(self, rows: int = 64) -> None:
        self.names: list[str] = []
        self.index: dict[str, int] = {}
        self.fine = Rings(FINE, (*FINE_FIELDS, "late"), rows)
        self.minutes = Rings(MINUTES, FINE_FIELDS, rows)
        self.hours = Rings(HOURS, COARSE_FIELDS, rows)
        self.days = Rings(DAYS, COARSE_FIELDS, rows)
        self.series = np.zeros(rows, np.int64)
        self.grace = np.full(rows, GRACE_S)
        self.open = np.full(rows, NO_BUCKET, np.int64)
        self.close_at = np.full(rows, np.inf)
        self.closed = np.full(rows, -1, np.int64)
        self.due = np.full(rows, np.inf)
        self.floor = np.full(rows, -1, np.int64)
        self.unplaced = np.zeros(rows, np.int64)
        self.n_unplaced = np.zeros(rows, np.int64)
        self.judged = np.full(rows, -1, np.int64)
        self.seen = np.full(rows, -1, np.int64)
        self.stored = np.full(rows, -1, np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def create(self, name: str) -> int:
        """Return the row of a new team."""
        row = len(self.names)
        if row == len(self.series):
            self._grow(grown(row))
        self.names.append(name)
        self.index[name] = row
        self.grace[row] = GRACE_S + PHASE_S * (xxh3_64_intdigest(name.encode()) % PHASES)
        return row

    def _grow(self, rows: int) -> None:
        more = rows - len(self.series)
        for ring in (self.fine, self.minutes, self.hours, self.days):
            ring.grow(rows)
        for name, fill in (
            ("series", 0),
            ("grace", GRACE_S),
            ("open", NO_BUCKET),
            ("close_at", np.inf),
            ("closed", -1),
            ("due", np.inf),
            ("floor", -1),
            ("unplaced", 0),
            ("n_unplaced", 0),
            ("judged", -1),
            ("seen", -1),
            ("stored", -1),
        ):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full(more, fill, old.dtype)]))

    def closable(self, now: NDArray[np.float64] | float, team: I64 | int) -> I64:
        """Return the newest 10 s bucket of each team that is closed at `now`."""
        return np.floor((now - self.grace[team]) / FINE_S).astype(np.int64) - 1

    def open_from(self, team: I64, bucket: I64) -> None:
        """Note buckets that rows on time have fallen into."""
        live = bucket > self.floor[team]
        if not live.all():
            team, bucket = team[live], bucket[live]
        np.minimum.at(self.open, team, bucket)
        self.close_at[team] = (self.open[team] + 1.0) * FINE_S + self.grace[team]

    def close_due(self, until: float) -> Closed:
        """Close every bucket with calls that the clock has passed by `until`; return them, each team's in order."""
        found: list[Closed] = []
        closing = np.flatnonzero(self.close_at[: len(self)] <= until)
        while len(closing):
            found.append((closing, self.open[closing], self.close_at[closing]))
            self.move_on(closing, self.open[closing])
            closing = closing[self.close_at[closing] <= until]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        team, bucket, at = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return team, bucket, at

    def move_on(self, team: I64, after: I64) -> None:
        """Move on to the oldest bucket with calls behind `after`; `team` names each team once."""
        calls, head = self.fine.fields["calls"], self.fine.head[team]
        after = np.maximum(after, head - FINE)
        self.open[team], self.close_at[team] = NO_BUCKET, np.inf
        while len(team):  # as often as the longest run of empty buckets is long
            after += 1
            held = after <= head
            team, after, head = team[held], after[held], head[held]
            used = calls[team, after % FINE] != 0
            here = team[used]
            self.open[here] = after[used]
            self.close_at[here] = (after[used] + 1.0) * FINE_S + self.grace[here]
            team, after, head = team[~used], after[~used], head[~used]
