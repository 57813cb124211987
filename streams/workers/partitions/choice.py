"""Which rows a partition is restored from, where several writers have left some.

Of a row the highest stamp holds. But a team's series, and a parent's children, stand on a head: they say that it has
not changed since its writer stored it. A writer that is followed and writes on may lose its head to the tombstone of
somebody who had found the key before, while its series stay: their head is older than what they say, and they are
passed over for the newest ones that the head bears. There are such ones: a writer removes others' keys only when all
of its own rows are safe (store.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from spendbrake.streams.engine.state.codec import unpack
from spendbrake.streams.engine.state.rows import HEAD, PARTITION, STANDS_ON


@dataclass(frozen=True, slots=True)
class Version:
    """What one writer has left of a row.

    Attributes:
        stamp: Epoch and offset.
        stands_on: The same of the oldest head that it goes with; None for a row that stands alone.
    """

    stamp: tuple[int, int]
    stands_on: tuple[int, int] | None
    value: bytes

    @classmethod
    def parse(cls, value: bytes) -> Self:
        """Return the version that a row is.

        Raises:
            BadRow: not a row of this format.
        """
        stamp, meta, _ = unpack(value)
        head = meta.get(STANDS_ON)
        return cls((stamp.epoch, stamp.offset), None if head is None else (stamp.epoch, head), value)


def choose(rows: Mapping[str, Mapping[str, Version]]) -> dict[str, bytes]:
    """Return the rows to restore from, by name; of the partition's own, which tells commits, that of each writer.

    Args:
        rows: By name of the row and writer.
    """
    heads = {
        key.removeprefix(f"{HEAD}|"): max(version.stamp for version in versions.values())
        for key, versions in rows.items()
        if key.startswith(f"{HEAD}|") and versions
    }
    chosen: dict[str, bytes] = {}
    for key, versions in rows.items():
        if key == PARTITION:  # a writer that lost the partition may be ahead of what its follower has committed
            chosen |= {f"{key}|{writer}": version.value for writer, version in versions.items()}
        elif held := [version for version in versions.values() if _bears(heads, key, version)]:
            chosen[key] = max(held, key=lambda version: version.stamp).value
    return chosen


def _bears(heads: Mapping[str, tuple[int, int]], key: str, version: Version) -> bool:
    """Tell whether the head that a row stands on is there, or a later one."""
    if version.stands_on is None:
        return True
    head = heads.get(key.split("|", 2)[2])
    return head is not None and version.stands_on <= head
