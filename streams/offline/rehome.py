"""Rows of a deployment for another number of partitions: each node's go to its new home, unchanged but for the place.

Pure: rows in, rows out. The logs must have been drained, so that rows hold all of them. What was seen comes along too:
the fingerprints of every partition that a home has nodes from. Where one number of partitions is a multiple of the
other, the whole horizon of duplicates is kept when there are to be more of them; else the newest part that has room.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spendbrake.actions.delivery.grouping import gathered_at
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import Row
from spendbrake.streams.engine.state.codec import pack, unpack
from spendbrake.streams.engine.state.fingerprints import BLOCK
from spendbrake.streams.engine.state.rows import BLOCKS, HEAD, MOVED, PARTITION, STANDS_ON
from spendbrake.streams.workers.notify.ledger import HELD, PINNED, LedgerRow

BEFORE = -1
"""Offset of what was before a log begins."""


@dataclass(frozen=True, slots=True)
class Move:
    """From how many partitions to how many, and the number of the new logs' incarnation."""

    before: int
    after: int
    epoch: int

    def home(self, node: str) -> int:
        """Return the new home of a node."""
        return partition_of(node.encode(), self.after)

    def sources(self, partition: int) -> list[int]:
        """Return the partitions that a new one has nodes from.

        Examples:
            >>> Move(4, 8, 2).sources(6), Move(4, 2, 2).sources(1), Move(2, 3, 2).sources(0)
            ([2], [1, 3], [0, 1])
        """
        step = math.gcd(self.before, self.after)
        return [number for number in range(self.before) if number % step == partition % step]


def applied_of(rows: Mapping[str, bytes]) -> int:
    """Return the last offset that the rows of a partition hold; -1 where there are none."""
    stamps = [unpack(value)[0] for key, value in rows.items() if key.split("|", 1)[0] == PARTITION]
    return max((stamp.offset for stamp in stamps), default=-1)


def usage_rows(partitions: Sequence[Mapping[str, bytes]], move: Move, blocks: int) -> Iterator[tuple[int, Row]]:
    """Yield (partition, row) of the state of teams.

    Args:
        partitions: Rows of each partition as they are chosen for a restore (`choose`).
        blocks: Of fingerprints that a partition keeps.
    """
    for rows in partitions:
        yield from _moved(rows, move)
    for partition in range(move.after):
        sources = [partitions[number] for number in move.sources(partition)]
        clock = _clock(sources)
        if clock is not None:
            yield partition, _partition_row(move, [(0, clock, 0)])
        yield from ((partition, row) for row in _block_rows(sources, move, blocks))


def parent_rows(partitions: Sequence[Mapping[str, bytes]], move: Move) -> Iterator[tuple[int, Row]]:
    """Yield (partition, row) of the state of nodes above the teams."""
    for rows in partitions:
        yield from _moved(rows, move)
    for partition in range(move.after):
        clock = _clock([partitions[number] for number in move.sources(partition)])
        if clock is not None:
            yield partition, _partition_row(move, [(0, clock)])


def ledger_rows(
    partitions: Sequence[Mapping[str, bytes]], move: Move, places: Mapping[str, Destination], now: float
) -> Iterator[tuple[int, Row]]:
    """Yield (partition, row) of the alerts that are held: what was carried out is not carried out again.

    Args:
        places: Destinations in force: an alert goes where its group will be told, and its node's home knows where.
        now: Epoch seconds UTC.
    """
    for rows in partitions:
        for key, value in rows.items():
            row = LedgerRow.parse(key, value)
            if key.startswith(HELD) and row.held is not None:
                action = row.held.action
                home = move.home(action.team or action.node)
                grouping = getattr(places.get(action.destination), "grouping", None)
                gathered = gathered_at(action, grouping, move.after)
                place = home if gathered is None else gathered
                held = replace(row.held, action=replace(action, partition=home))
                yield place, Row(key, replace(row, held=held).value)
                if place != home:
                    alert = key.removeprefix(HELD)
                    yield (
                        home,
                        Row(PINNED + alert, LedgerRow(PINNED + alert, row.turn, None, pinned=(place, now)).value),
                    )


def _moved(rows: Mapping[str, bytes], move: Move) -> Iterator[tuple[int, Row]]:
    """Yield the rows of nodes; their name is the last part of the key."""
    for key, value in rows.items():
        kind = key.split("|", 1)[0]
        if kind in (PARTITION, BLOCKS):
            continue
        home = move.home(key.split("|", 1 if kind == HEAD else 2)[-1])
        _, meta, arrays = unpack(value)
        if "ladder" in meta:
            meta["ladder"] = _ladder(meta["ladder"], home)
        if STANDS_ON in meta:
            meta[STANDS_ON] = BEFORE
        yield home, Row(key, pack(Stamp(epoch=move.epoch, offset=BEFORE), meta, arrays))


def _ladder(data: Mapping[str, Any], home: int) -> dict[str, Any]:
    """Return the state of a ladder whose decisions are another partition's."""
    state = LadderState.from_state(data)
    for _, _, group in state:
        for track in group.tracks.values():
            track.partition = home
        for slot in group.slots.values():
            slot.action = replace(slot.action, partition=home)
    return state.to_state()


def _clock(sources: Sequence[Mapping[str, bytes]]) -> float | None:
    """Return the earliest clock of partitions: from there on every day that begins is begun for all."""
    clocks = []
    for rows in sources:
        marks = [
            (stamp.offset, meta["marks"][-1][1])
            for stamp, meta, _ in (unpack(v) for k, v in rows.items() if k.split("|", 1)[0] == PARTITION)
            if meta["marks"]
        ]
        if marks:
            clocks.append(max(marks)[1])
    return min(clocks, default=None)


def _partition_row(move: Move, marks: list[tuple[Any, ...]]) -> Row:
    return Row(PARTITION, pack(Stamp(epoch=move.epoch, offset=BEFORE), {"marks": marks, MOVED: True}, {}))


def _block_rows(sources: Sequence[Mapping[str, bytes]], move: Move, blocks: int) -> Iterator[Row]:
    """Yield the newest blocks of all sources, numbered so that the last comes right before the log begins."""
    held = []
    for place, rows in enumerate(sources):
        found = [unpack(value) for key, value in rows.items() if key.startswith(f"{BLOCKS}|")]
        epoch = max((stamp.epoch for stamp, _, _ in found), default=0)
        held += [(m["at"], place, m["number"], m, arrays) for stamp, m, arrays in found if stamp.epoch == epoch]
    newest = sorted(held, key=lambda each: each[:3])[-blocks:]
    for back, (at, _, before, _, arrays) in enumerate(reversed(newest), 1):
        number = -back
        applied = (number + 1) * BLOCK - 1
        meta = {"number": number, "at": at, "since": None, "applied": applied}
        marked = arrays["marked_at"] + (number - before) * BLOCK
        columns = {"fingerprints": arrays["fingerprints"], "marks": arrays["marks"], "marked_at": marked}
        stamp = Stamp(epoch=move.epoch, offset=applied)
        yield Row(f"{BLOCKS}|{number % blocks}", pack(stamp, meta, {n: np.asarray(c) for n, c in columns.items()}))
