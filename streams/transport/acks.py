"""In-flight chunks: what was delivered, acknowledged and may be committed. Offsets only; no record is kept here."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from spendbrake.streams.transport.port import TP


@dataclass(frozen=True, slots=True)
class Limits:
    """When consumption pauses.

    Attributes:
        offsets: Unacknowledged offsets of all partitions together.
        age_s: Seconds since the oldest unacknowledged chunk of a partition was delivered.
        lookback: Offsets of one partition past its last commit: what its reader, begun again there, can tell apart.
    """

    offsets: int = 4_000_000
    age_s: float = 60.0
    lookback: int | None = None


@dataclass(slots=True)
class _Span:
    first: int
    last: int
    at: float
    acked: bool = False


@dataclass(slots=True)
class _Partition:
    spans: deque[_Span] = field(default_factory=deque)
    offsets: int = 0
    end: int | None = None
    begins: int = 0
    """What a restart would read first: the commit, or the first chunk of the generation before there is one."""
    reached: int = 0

    @property
    def past_commit(self) -> int:
        return self.reached - self.begins


class InFlight:
    """Chunks handed out and not yet committable, a queue a partition, within one generation of the group.

    The committable offset is the end of the acknowledged prefix, so a commit never passes a chunk that is still at
    work, however the ones behind it fare.

    Attributes:
        stale: Acknowledgements ignored because they were for an older generation.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._generation: int | None = None
        self._partitions: dict[TP, _Partition] = {}
        self._offsets = 0
        self.stale = 0

    def delivered(self, tp: TP, first: int, last: int, *, generation: int, at: float) -> None:
        """Note a chunk handed out at `at`, seconds on any clock that never runs back."""
        if generation != self._generation:
            self.forget(list(self._partitions))
            self._generation = generation
        partition = self._partitions.setdefault(tp, _Partition(begins=first))
        partition.spans.append(_Span(first, last, at))
        partition.reached = last + 1
        partition.offsets += last + 1 - first
        self._offsets += last + 1 - first

    def ack(self, tp: TP, first: int, last: int, *, generation: int) -> bool:
        """Acknowledge the chunks that lie wholly within `first` to `last`; False if the generation is over."""
        if generation != self._generation:
            self.stale += 1
            return False
        partition = self._partitions.get(tp)
        for span in partition.spans if partition else ():
            if span.last > last:
                break
            if span.first >= first and not span.acked:
                span.acked = True
        return True

    def committable(self, tp: TP) -> int | None:
        """Return the offset after the acknowledged prefix; None while nothing of the partition is acknowledged.

        It stays until a later one takes its place, so that a commit that failed is made good by the next.
        """
        partition = self._partitions.get(tp)
        if partition is None:
            return None
        while partition.spans and partition.spans[0].acked:
            span = partition.spans.popleft()
            partition.offsets -= span.last + 1 - span.first
            self._offsets -= span.last + 1 - span.first
            partition.end = span.last + 1
        return partition.end

    def committed(self, tp: TP, offset: int) -> None:
        """Note a commit that the group has taken."""
        partition = self._partitions.get(tp)
        if partition is not None:
            partition.begins = max(partition.begins, offset)

    def oldest(self, tp: TP) -> int | None:
        """Return the first offset in flight; None when all are acknowledged."""
        partition = self._partitions.get(tp)
        waiting = (span.first for span in partition.spans if not span.acked) if partition else ()
        return next(iter(waiting), None)

    def partitions(self) -> list[TP]:
        """Return the partitions that had chunks in this generation."""
        return list(self._partitions)

    def offsets(self) -> int:
        """Return the number of offsets in flight, of all partitions."""
        return self._offsets

    def filled(self) -> float:
        """Return how much is taken of what may be in flight, in all or of the fullest partition; 1 = reading pauses."""
        filled = self._offsets / self._limits.offsets
        if self._limits.lookback is None:
            return filled
        return max([filled, *(p.past_commit / self._limits.lookback for p in self._partitions.values())])

    def paused(self, now: float) -> set[TP]:
        """Return the partitions that must not be read from now: all of them past the limit of offsets."""
        if self._offsets >= self._limits.offsets:
            return set(self._partitions)
        oldest = now - self._limits.age_s
        return {
            tp
            for tp, partition in self._partitions.items()
            if (partition.spans and partition.spans[0].at <= oldest) or self._is_too_far(partition)
        }

    def _is_too_far(self, partition: _Partition) -> bool:
        return self._limits.lookback is not None and partition.past_commit >= self._limits.lookback

    def forget(self, tps: Iterable[TP]) -> None:
        """Drop partitions that were given up."""
        for tp in tps:
            partition = self._partitions.pop(tp, None)
            if partition:
                self._offsets -= partition.offsets
