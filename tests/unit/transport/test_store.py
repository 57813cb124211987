"""The state table's store: rows go to their loader, writers stay apart, other writers' keys are removed last."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport import base
from faust.types import TP

from spendbrake.streams.transport.app import ChunkApp, Delivery, create_app
from spendbrake.streams.transport.port import Outgoing
from spendbrake.streams.transport.store import RowLog, RowStore, RowTable, changelog_name, declare_table, split_key

TOPIC = changelog_name("group", "state")


@dataclass(frozen=True)
class OneRow:
    key: str
    value: bytes


@dataclass
class Kept:
    """A loader that notes what it hears."""

    loaded: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    dropped: list[tuple[int, str, str]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    ready: list[frozenset[int]] = field(default_factory=list)
    error: Exception | None = None

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.loaded.append((partition, key, writer, value))

    def drop(self, partition: int, key: str, writer: str) -> None:
        self.dropped.append((partition, key, writer))

    def forget(self, partition: int, generation: int) -> None:
        self.forgotten.append(partition)

    def recovered(self, partitions: frozenset[int]) -> None:
        self.ready.append(partitions)


@dataclass
class Wire:
    """A sender whose acknowledgements come when the test says so."""

    sent: list[tuple[int, list[Outgoing]]] = field(default_factory=list)
    refuses: bool = False

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        assert topic == TOPIC
        self.sent.append((partition, list(records)))

        async def answer() -> None:
            if self.refuses:
                raise OSError("not acknowledged")

        return answer()


def event(key: bytes, value: bytes | None, partition: int = 0) -> Any:
    return SimpleNamespace(message=SimpleNamespace(partition=partition, key=key, value=value))


@pytest.fixture
def rows() -> Kept:
    return Kept()


@pytest.fixture
async def app(tmp_path: Path) -> ChunkApp:
    return create_app(
        "group",
        broker="kafka://127.0.0.1:1",
        delivery=Delivery(topics=frozenset()),
        data_dir=tmp_path,
        transport=base.Transport,
    )


@pytest.fixture
async def table(app: ChunkApp, rows: Kept) -> RowTable:
    made = declare_table(app, "state", partitions=4, rows=rows)
    await store_of(made).on_rebalance({TP(TOPIC, 0), TP(TOPIC, 1), TP("usage.v1", 3)}, set(), set(), 1)
    rows.forgotten.clear()
    return made


def store_of(table: RowTable) -> RowStore:
    return cast(RowStore, table.data)


def apply(table: RowTable, *events: Any) -> None:
    table.apply_changelog_batch(events)


async def test_rows_of_every_writer_reach_the_loader_in_order(table: RowTable, rows: Kept) -> None:
    apply(table, event(b"head/a@w1", b"1"), event(b"head/a@w2", b"2"), event(b"head/b@c@w1", b"3", 1))
    assert rows.loaded == [(0, "head/a", "w1", b"1"), (0, "head/a", "w2", b"2"), (1, "head/b@c", "w1", b"3")]
    assert len(table) == 0, "nothing is kept twice"


async def test_rows_of_partitions_not_owned_are_dropped(table: RowTable, rows: Kept) -> None:
    apply(table, event(b"head/a@w1", b"1", 2), event(b"head/a@w1", b"1", 3))
    assert rows.loaded == []


async def test_a_partition_that_goes_and_one_that_comes_are_forgotten_and_a_kept_one_is_not(
    table: RowTable, rows: Kept, app: ChunkApp
) -> None:
    offsets = app.tables.recovery.active_offsets  # type: ignore[attr-defined]
    offsets.update({TP(TOPIC, 0): 7, TP(TOPIC, 1): 8, TP(TOPIC, 2): 9})
    await store_of(table).on_rebalance({TP(TOPIC, 1), TP(TOPIC, 2)}, set(), set(), 2)
    assert sorted(rows.forgotten) == [0, 2]
    assert dict(offsets) == {TP(TOPIC, 1): 8}, "what came is read from its start, whatever Faust remembers of it"


async def test_who_has_missed_a_generation_forgets_what_it_kept(table: RowTable, rows: Kept, app: ChunkApp) -> None:
    offsets = app.tables.recovery.active_offsets  # type: ignore[attr-defined]
    offsets.update({TP(TOPIC, 0): 7, TP(TOPIC, 1): 8})
    await store_of(table).on_rebalance({TP(TOPIC, 0), TP(TOPIC, 1)}, set(), set(), 3)
    assert sorted(rows.forgotten) == [0, 1], "another process may have owned them in generation 2"
    assert not offsets


async def test_the_loader_hears_when_all_is_loaded(table: RowTable, rows: Kept) -> None:
    await table.on_recovery_completed(set(), set())
    assert rows.ready == [frozenset({0, 1})]


async def test_an_error_of_the_loader_lets_no_rebalance_end(table: RowTable, rows: Kept, app: ChunkApp) -> None:
    rows.error = ValueError("head/a: not a row")
    with pytest.raises(ValueError, match="not a row"):
        apply(table, event(b"head/a@w1", b"1"))
    with pytest.raises(ValueError, match="not a row"):
        app.on_rebalance_end()
    assert app.settled_generation is None


async def test_keys_of_other_writers_are_removed_when_asked_once_rows_are_written(table: RowTable) -> None:
    apply(table, event(b"a@w1", b"1"), event(b"a@w2", b"2"), event(b"b@w1", b"3"), event(b"a@me.1", b"0"))
    wire = Wire()
    log = RowLog(table, wire, "me")
    await log.write(0, [OneRow("a", b"4")])
    await log.write(0, [OneRow("c", b"5")])
    await log.bury(0)
    await log.write(0, [OneRow("a", b"6")])
    await log.bury(0)
    assert wire.sent == [
        (0, [Outgoing(b"a@me.1", b"4")]),
        (0, [Outgoing(b"c@me.1", b"5")]),
        (0, [Outgoing(b"a@w1", None), Outgoing(b"a@w2", None)]),
        (0, [Outgoing(b"a@me.1", b"6")]),
    ]


async def test_a_row_not_acknowledged_removes_nothing(table: RowTable) -> None:
    apply(table, event(b"a@w1", b"1"))
    wire = Wire(refuses=True)
    log = RowLog(table, wire, "me")
    with pytest.raises(OSError, match="not acknowledged"):
        await log.write(0, [OneRow("a", b"4")])
    await log.bury(0)
    assert len(wire.sent) == 1
    assert store_of(table).take_writers(0, "a") == {"w1"}


async def test_a_tombstone_removes_its_own_key_only_and_the_loader_hears_of_it(table: RowTable, rows: Kept) -> None:
    apply(table, event(b"a@w1", b"1"), event(b"a@w2", b"2"), event(b"a@w1", None))
    assert store_of(table).take_writers(0, "a") == {"w2"}
    assert rows.dropped == [(0, "a", "w1")]


async def test_nothing_to_write_sends_nothing(table: RowTable) -> None:
    wire = Wire()
    await RowLog(table, wire, "me").write(0, [])
    assert wire.sent == []


@pytest.mark.parametrize("writer", ["", "a@b"])
async def test_a_writer_is_a_name_without_at(table: RowTable, writer: str) -> None:
    with pytest.raises(ValueError, match="writer"):
        RowLog(table, Wire(), writer)


def test_a_row_may_have_an_at_in_its_name() -> None:
    assert split_key(b"team@home@w1") == ("team@home", "w1")
