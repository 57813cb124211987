"""The ledger's rows: which of two holds, whoever wrote it and whenever it was read."""

import asyncio
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.ledger import KEEP_S, Entry
from spendbrake.streams.workers.notify.ledger import TERM_KEY, LedgerRow, Ledgers, Turn
from unit.notify.world import Died, MemoryChangelog

INTENT = Entry(attempts=1, at=10.0)
DONE = Entry(attempts=1, at=11.0, outcome="done", response={"ts": "1.2"})
FAILED = Entry(attempts=6, at=12.0, outcome="failed", error="HTTP 410")


@pytest.mark.parametrize("entry", [INTENT, DONE, FAILED, None])
def test_a_row_is_read_as_it_was_written(entry: Entry | None) -> None:
    row = LedgerRow("a-1", Turn(3, 2, 1), entry)
    assert LedgerRow.parse("a-1", row.value) == row


def test_the_row_of_an_alert_that_was_let_go_is_read_as_it_was_written() -> None:
    row = LedgerRow("held/a", Turn(3, 2, 1), None, gone_at=12.5)
    assert LedgerRow.parse("held/a", row.value) == row
    assert not row.is_claim


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"turn":[1]}', b'{"turn":[1,2,3],"colour":"red"}'])
def test_what_is_no_row_is_refused_by_its_key(value: bytes) -> None:
    with pytest.raises(ValueError, match="ledger row 'a-1'"):
        Ledgers().load(0, "a-1", "w", value)


async def test_puts_side_by_side_are_one_write_and_the_first_claims_a_term() -> None:
    log = MemoryChangelog()
    ledger = log.recovered().open(0, 1, log.of("w-1"))
    await asyncio.gather(*(ledger.put(f"a-{number}", INTENT) for number in range(5)))
    assert log.batches == [[TERM_KEY, "a-0", "a-1", "a-2", "a-3", "a-4"]]


async def test_an_entry_is_there_for_the_next_owner_once_put_returns() -> None:
    log = MemoryChangelog()
    await log.recovered().open(0, 1, log.of("w-1")).put("a-1", DONE)
    assert log.recovered().open(0, 1, log.of("w-2")).get("a-1") == DONE


async def test_an_entry_is_not_there_before_it_is_safe() -> None:
    log = MemoryChangelog()
    ledger = log.recovered().open(0, 1, log.of("w-1", dies_at=1))
    with pytest.raises(Died):
        await ledger.put("a-1", INTENT)
    assert (ledger.get("a-1"), log.rows) == (None, {})


async def test_a_predecessor_that_wakes_up_writes_in_vain() -> None:
    log = MemoryChangelog()
    frozen = log.recovered().open(0, 7, log.of("w-1"))
    await frozen.put("a-1", INTENT)
    successor = log.recovered().open(0, 8, log.of("w-2"))
    await successor.put("a-1", DONE)
    for attempt in range(2, 9):
        await frozen.put("a-1", Entry(attempts=attempt, at=1_000.0 + attempt))
    assert log.recovered().open(0, 9, log.of("w-3")).get("a-1") == DONE


async def test_a_predecessor_that_had_written_nothing_is_told_by_its_generation() -> None:
    log = MemoryChangelog()
    frozen, successor = log.recovered().open(0, 7, log.of("w-1")), log.recovered().open(0, 8, log.of("w-2"))
    await successor.put("a-1", DONE)
    await frozen.put("a-1", INTENT)
    assert log.recovered().open(0, 9, log.of("w-3")).get("a-1") == DONE


async def test_a_group_whose_generations_begin_again_loses_nothing() -> None:
    log = MemoryChangelog()
    await log.recovered().open(0, 900, log.of("w-1")).put("a-1", INTENT)
    await log.recovered().open(0, 1, log.of("w-2")).put("a-1", DONE)
    assert log.recovered().open(0, 1, log.of("w-3")).get("a-1") == DONE


async def test_a_term_outlives_the_entries_that_are_forgotten() -> None:
    log = MemoryChangelog()
    await log.recovered().open(0, 5, log.of("w-1")).put("old", INTENT)
    zombie = log.recovered().open(0, 6, log.of("w-2"))
    assert await zombie.expire(INTENT.at + KEEP_S) == 1
    successor = log.recovered().open(0, 1, log.of("w-3"))
    await successor.put("a-1", DONE)
    await zombie.put("a-1", INTENT)
    assert log.recovered().open(0, 2, log.of("w-4")).get("a-1") == DONE


async def test_only_what_has_expired_is_taken_out_for_all_writers() -> None:
    log = MemoryChangelog()
    await log.recovered().open(0, 1, log.of("w-1")).put("old", INTENT)
    ledger = log.recovered().open(0, 2, log.of("w-2"))
    await ledger.put("old", Entry(attempts=2, at=10.0, outcome="done"))
    await ledger.put("new", Entry(attempts=1, at=10.5))
    assert await ledger.expire(10.0 + KEEP_S) == 1
    assert {key for key, _ in log.rows} == {"new", TERM_KEY}
    assert ledger.get("old") is None
    assert await ledger.expire(10.0 + KEEP_S) == 0


TURNS = st.builds(Turn, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


@given(st.lists(TURNS, min_size=1, max_size=4, unique=True))
def test_the_highest_turn_holds_in_whatever_order_rows_are_read(turns: list[Turn]) -> None:
    rows = [LedgerRow("a", turn, Entry(attempts=place, at=0.0)) for place, turn in enumerate(turns)]
    for order in permutations(rows):
        ledgers = Ledgers()
        for row in order:
            ledgers.load(0, "a", f"w{row.turn}", row.value)
        ledger = ledgers.open(0, 1, MemoryChangelog().of("w"))
        assert ledger.get("a") == max(rows, key=lambda row: row.turn).entry


def test_a_partition_that_went_is_forgotten() -> None:
    ledgers = Ledgers()
    ledgers.load(0, "a", "w", LedgerRow("a", Turn(1, 1, 1), DONE).value)
    ledgers.forget(0, 1)
    assert ledgers.open(0, 1, MemoryChangelog().of("w")).get("a") is None
