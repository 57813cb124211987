"""How far the owners of a simulated log have come: which ticks lie before what their group has committed."""

from collections import defaultdict, deque
from collections.abc import Mapping


class TickProgress:
    """The latest acknowledged tick of each partition; the `Progress` of streams/simulate/player.py."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[int, float]]] = defaultdict(deque)
        self._reached: dict[int, float] = {}

    def sent(self, partition: int, offset: int, at: float) -> None:
        """Note a tick of the trace's time `at` where the broker has put it; offsets of a partition rise."""
        self._waiting[partition].append((offset, at))

    def committed(self, offsets: Mapping[int, int]) -> None:
        """Note the group's next offset by partition."""
        for partition, following in offsets.items():
            waiting = self._waiting[partition]
            while waiting and waiting[0][0] < following:
                self._reached[partition] = waiting.popleft()[1]

    def __call__(self) -> Mapping[int, float]:
        """Return the time of each partition's latest acknowledged tick, if any."""
        return self._reached
