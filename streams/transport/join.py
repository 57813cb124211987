"""Joined delivery: hand out of a partition only what continues where the last hand-out ended. It fetches nothing."""

from bisect import bisect_left
from collections.abc import Collection

from spendbrake.streams.transport.port import TP, Log, Run


class RecordsLostError(RuntimeError):
    """The log begins later than what the group has yet to read: retention removed records nobody has counted."""


class LogCutShortError(RuntimeError):
    """The log ends before what the group has read: its last records are gone, and others will get their offsets."""


class JoinedDelivery:
    """What may be delivered next, a partition at a time, within one generation of the group.

    Clients seek, pause, resume and clear queues around a rebalance, and records fetched in between are handed out
    all the same. None of that is trusted: a partition starts at its commit, and after that every run must reach back
    to the expected offset. Since a run holds all the log has from its position on, a first record past the expected
    offset is a true gap (transaction marker, compaction) exactly when the position is not past it; otherwise it
    is a hole, and the log is sought back.

    Args:
        passing: Topics whose records may be gone before they are read: there reading goes on where the log begins.

    Attributes:
        holes: Runs refused because they began past the expected offset.
        gaps: Offsets passed over because the log holds no record there.
    """

    def __init__(self, log: Log, passing: Collection[str] = ()) -> None:
        self._log, self._passing = log, passing
        self._generation: int | None = None
        self._next: dict[TP, int] = {}
        self.holes = 0
        self.gaps = 0

    async def rewind(self, tp: TP, generation: int) -> None:
        """Seek to what must come next: records were read and then not delivered."""
        expected = await self._expected(tp, generation)
        if expected is not None:
            await self._log.seek(tp, expected)

    async def admit(self, run: Run, generation: int) -> int | None:
        """Return the index of the first record of a run to deliver; None when none of it may be delivered.

        The caller delivers from there in order, and reports each hand-out by `delivered`.

        Raises:
            RecordsLostError: The log begins past the expected offset.
            LogCutShortError: It ends before it.
        """
        expected = await self._expected(run.tp, generation)
        if expected is None:
            return None
        if run.position > expected and not await self._has_passed(run):
            await self._seek_back(run.tp, expected)
            return None
        start = bisect_left(run.offsets, expected)
        if start == len(run.offsets):
            await self._must_reach(run.tp, expected)
            return None
        return start

    def delivered(self, tp: TP, first: int, last: int) -> int:
        """Note that all records from `first` to `last` were handed out; return the offset they continued from."""
        joins = self._next[tp]
        self.gaps += first - joins
        self._next[tp] = last + 1
        return joins

    def expected(self, tp: TP) -> int | None:
        """Return the offset that must come next; None before the partition's first run of this generation."""
        return self._next.get(tp)

    async def _expected(self, tp: TP, generation: int) -> int | None:
        if generation != self._generation:
            self._next.clear()
            self._generation = generation
        if tp not in self._next:
            committed = await self._log.committed(tp)
            first = await self._log.log_start(tp) if committed is None else committed
            if generation != self._generation:
                return None
            self._next[tp] = first
        return self._next[tp]

    async def _must_reach(self, tp: TP, expected: int) -> None:
        end = await self._log.log_end(tp)
        if end < expected:
            raise LogCutShortError(
                f"{tp[0]}/{tp[1]}: offset {expected} is next to be read, but the log ends at {end}: records that were "
                "read are no longer in it"
            )

    async def _has_passed(self, run: Run) -> bool:
        """Tell whether all that is missing before a run is no longer in its log, and need not be."""
        return run.tp[0] in self._passing and run.position <= await self._log.log_start(run.tp)

    async def _seek_back(self, tp: TP, expected: int) -> None:
        self.holes += 1
        start = await self._log.log_start(tp)
        if start > expected and tp[0] in self._passing:
            expected = start
        if start > expected:
            raise RecordsLostError(
                f"{tp[0]}/{tp[1]}: offset {expected} is next to be read, but the log begins at {start}: "
                f"{start - expected} offsets were removed by retention before anybody counted them"
            )
        await self._log.seek(tp, expected)
