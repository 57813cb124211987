"""Recovered rows until the first chunk of a partition tells the commit."""

from typing import Any

import pytest

from spendbrake.schemas.decision import Stamp
from spendbrake.streams.engine.state.codec import pack
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.partitions.journal import Journal

Restored = list[tuple[int, dict[str, bytes], int]]


def row(offset: int) -> bytes:
    return pack(Stamp(epoch=1, offset=offset), {}, {})


def chunk(first: int, generation: int = 1) -> Chunk:
    columns: dict[str, Any] = {"values": [b""], "keys": [b""], "timestamps_ms": [0], "headers": [()]}
    return Chunk(
        topic="usage.v1",
        partition=0,
        generation=generation,
        joins=first,
        first=first,
        last=first,
        offsets=range(first, first + 1),
        **columns,
    )


@pytest.fixture
def restored() -> Restored:
    return []


@pytest.fixture
def journal(restored: Restored) -> Journal:
    def restore(number: int, rows: dict[str, bytes], committed: int) -> object:
        restored.append((number, rows, committed))
        return object()

    return Journal(restore, lambda: None)  # type: ignore[arg-type,return-value]


def test_a_partition_is_restored_from_the_rows_of_all_writers_at_its_first_chunk(
    journal: Journal, restored: Restored
) -> None:
    journal.load(0, "block|0", "a", row(9))
    journal.load(0, "block|0", "b", row(3))
    journal.load(1, "block|0", "a", row(5))
    journal.open(chunk(7))
    journal.open(chunk(7))
    assert restored == [(0, {"block|0": row(9)}, 7)]


def test_a_writers_row_takes_the_place_of_its_earlier_one(journal: Journal, restored: Restored) -> None:
    journal.load(0, "block|0", "a", row(9))
    journal.load(0, "block|0", "a", row(12))
    journal.open(chunk(7))
    assert restored == [(0, {"block|0": row(12)}, 7)]


def test_compacted_or_not_a_row_that_was_removed_is_gone(journal: Journal, restored: Restored) -> None:
    for writer, offset in (("a", 9), ("b", 3)):
        journal.load(0, "block|0", writer, row(offset))
    journal.drop(0, "block|0", "a")
    journal.drop(0, "block|1", "c")
    journal.drop(5, "block|1", "c")
    journal.open(chunk(7))
    assert restored == [(0, {"block|0": row(3)}, 7)]


def test_rows_of_a_partition_that_went_are_forgotten(journal: Journal, restored: Restored) -> None:
    journal.load(0, "block|0", "a", row(9))
    journal.forget(0, 1)
    journal.open(chunk(7))
    assert restored == [(0, {}, 7)]


def test_a_chunk_that_was_under_way_when_its_partition_went_opens_nothing(journal: Journal, restored: Restored) -> None:
    journal.open(chunk(7, generation=1))
    journal.forget(0, 3)
    assert journal.open(chunk(8, generation=1)) is None
    journal.load(0, "block|0", "another", row(30))
    journal.open(chunk(31, generation=3))
    assert restored == [(0, {}, 7), (0, {"block|0": row(30)}, 31)]
