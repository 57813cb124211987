"""How many records a step takes at once: so many that the event loop is not held up for long."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from spendbrake.streams.transport.chunk import Chunk

TARGET_S = 0.012
"""What a step may take: a heartbeat, a tick or a question to the API waits for it."""
LEAST = 50
"""Records of the smallest step: with fewer, what a step costs whatever it holds would outweigh them."""


class Slices:
    """Cuts chunks by what the last step took a record. A chunk full of new teams takes ten times an ordinary one.

    Engines are blind to cuts, so that no outcome hangs on this measurement.

    Args:
        clock: CPU time of the thread, seconds: on a busy machine smaller steps would only make more work.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self.clock = clock
        self.size = LEAST

    def cut(self, chunk: Chunk) -> Iterator[Chunk]:
        """Yield a chunk in parts, in order."""
        at, n = 0, len(chunk)
        while at < n:
            end = n if n - at <= 1.5 * self.size else at + self.size
            yield chunk if end - at == n else _part(chunk, at, end)
            at = end

    def took(self, n: int, seconds: float) -> None:
        """Note what a step over `n` records took; the size goes down at once, and up by four at most."""
        fits = int(n * TARGET_S / max(seconds, 1e-9))
        self.size = min(max(fits, LEAST), 4 * self.size)


def _part(chunk: Chunk, at: int, end: int) -> Chunk:
    """Return the records `[at, end)` of a chunk; the last part keeps the chunk's end, the first what it joins."""
    columns = {name: getattr(chunk, name)[at:end] for name in ("offsets", "values", "keys", "timestamps_ms", "headers")}
    joins = chunk.joins if at == 0 else chunk.offsets[at - 1] + 1
    last = chunk.last if end == len(chunk) else chunk.offsets[end - 1]
    return replace(chunk, joins=joins, first=chunk.offsets[at], last=last, **columns)
