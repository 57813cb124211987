"""The state table: recovered rows go straight to their loader, and only the keys of other writers are kept here.

A changelog key is `row@writer`, the writer being one start of one process, and within it one time it has had the
partition: nobody overwrites a key of another. A worker that was frozen and wakes up writes under its own key, where it
can neither replace its successor's row nor be what compaction keeps, and removes no key but those it once found. The
loader is given the rows of all writers and chooses among them; the owner removes the other writers' keys once all its
own rows are safe: who is frozen before the last of them has removed nothing that others may stand on.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import faust
from faust.stores import memory
from faust.tables.manager import TableManager
from faust.types import TP, EventT

from spendbrake.streams.transport.app import ChunkApp
from spendbrake.streams.transport.port import Outgoing, SendRun


class Row(Protocol):
    """One row of state, without its writer."""

    @property
    def key(self) -> str:
        """Name of the row, unique within its partition."""

    @property
    def value(self) -> bytes:
        """The row itself, its stamp inside."""


class Rows(Protocol):
    """What takes recovered rows in."""

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        """Take in a writer's row, in place of its earlier one; rows come in the order they were written."""

    def drop(self, partition: int, key: str, writer: str) -> None:
        """Hear that a writer's row was removed: compaction may have spared it, or not."""

    def forget(self, partition: int, generation: int) -> None:
        """Drop all state of a partition: it went to another process, or is about to be read from its start.

        Chunks of earlier generations than this may still be under way in this process: they are about what is gone.
        """

    def recovered(self, partitions: frozenset[int]) -> None:
        """Hear that all rows of these partitions, the ones now owned, have been loaded."""


def changelog_name(group: str, table: str) -> str:
    """Return the name of the topic that Faust keeps a table's rows in."""
    return f"{group}-{table}-changelog"


def split_key(key: bytes) -> tuple[str, str]:
    """Return row and writer of a changelog key.

    Examples:
        >>> split_key(b"head/ops@eu@w-7")
        ('head/ops@eu', 'w-7')
    """
    row, _, writer = key.decode().rpartition("@")
    return row, writer


class RowStore(memory.Store[bytes, bytes]):
    """Faust's store of a state table."""

    app: ChunkApp
    table: "RowTable"
    rows: Rows

    def __post_init__(self) -> None:
        super().__post_init__()
        self._owned: frozenset[int] = frozenset()
        self._generation = 0
        self._tenures: dict[int, int] = {}
        self._writers: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def apply_changelog_batch(
        self, batch: Iterable[EventT[Any]], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Hand recovered rows to the loader. An error ends the process: Faust would log it and go on without them."""
        try:
            for event in batch:
                self._apply(event.message.partition, event.message.key or b"", event.message.value)
        except Exception as exc:
            self.app.fail(exc)
            raise

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget partitions that went, and have new ones read from their start.

        Faust skips its own note of what was revoked when one rebalance overtakes another, and would then go on
        reading a partition that came back from where it once stopped. Whoever was not in the generation before, frozen
        past its session perhaps, may find others' rows in every partition: it forgets all.
        """
        topic = self.table.changelog_topic_name
        owned = frozenset(tp.partition for tp in assigned if tp.topic == topic)
        recovery = cast(TableManager, self.app.tables).recovery
        followed, self._generation = generation_id == self._generation + 1, generation_id
        for partition in owned ^ self._owned if followed else owned | self._owned:
            self._writers.pop(partition, None)
            self.rows.forget(partition, generation_id)
            recovery.active_offsets.pop(TP(topic, partition), None)
            if partition in owned:
                self._tenures[partition] = generation_id
        self._owned = owned

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Tell the loader; Faust waits for this, but swallows what it raises."""
        try:
            self.rows.recovered(self._owned)
        except Exception as exc:
            self.app.fail(exc)

    def tenure(self, partition: int) -> int:
        """Return the generation of the group in which this process has come to a partition, the last time it did."""
        return self._tenures.get(partition, 0)

    def take_writers(self, partition: int, key: str) -> set[str]:
        """Return, and forget, which writers have a key of this row in the changelog."""
        return self._writers[partition].pop(key, set())

    def _apply(self, partition: int, key: bytes, value: bytes | None) -> None:
        if partition not in self._owned:
            return
        row, writer = split_key(key)
        if value is None:
            self._writers[partition][row].discard(writer)
            self.rows.drop(partition, row, writer)
            return
        self._writers[partition][row].add(writer)
        self.rows.load(partition, row, writer, value)


class RowTable(faust.Table[bytes, bytes]):
    """A Faust table used for its changelog and recovery alone; nothing is ever put into it."""

    rows: Rows

    def _new_store(self) -> RowStore:
        store = RowStore("memory://", self.app, self, table_name=self.name)
        store.rows = self.rows
        return store


def declare_table(app: ChunkApp, name: str, *, partitions: int, rows: Rows) -> RowTable:
    """Add the state table of an app; its changelog (`changelog_name`) must exist with as many partitions."""
    table = RowTable(app, name=name, partitions=partitions, key_type=bytes, value_type=bytes, beacon=app.beacon)
    table.rows = rows
    app.tables.add(table)
    return table


class RowLog:
    """Writes rows of one process into the changelog, under a name of its own for each time it has a partition."""

    def __init__(self, table: RowTable, sender: SendRun, writer: str) -> None:
        if "@" in writer or not writer:
            raise ValueError(f"writer {writer!r}: must be a name without @")
        self._table = table
        self._sender = sender
        self._writer = writer
        self._replaced: dict[int, list[str]] = defaultdict(list)

    async def write(self, partition: int, rows: Sequence[Row]) -> None:
        """Write rows and wait until the broker has them.

        Raises:
            KafkaError: A row was not acknowledged; nothing may be acknowledged on its account.
        """
        if not rows:
            return
        topic = self._table.changelog_topic_name
        name = self._name(partition)
        mine = [Outgoing(f"{row.key}@{name}".encode(), row.value) for row in rows]
        await (await self._sender.send_run(topic, partition, mine))
        for row in rows:
            self._replaced[partition] += self._others(partition, row.key)

    async def bury(self, partition: int) -> None:
        """Remove the keys that other writers had of the rows written since, and wait until the broker has it.

        Raises:
            KafkaError: It was not acknowledged.
        """
        await self._remove(partition, self._replaced.pop(partition, []))

    async def remove(self, partition: int, keys: Sequence[str]) -> None:
        """Take rows out, whoever wrote them, and wait until the broker has it.

        Raises:
            KafkaError: It was not acknowledged.
        """
        name = self._name(partition)
        await self._remove(partition, [k for key in keys for k in (*self._others(partition, key), f"{key}@{name}")])

    def _others(self, partition: int, key: str) -> list[str]:
        writers = cast(RowStore, self._table.data).take_writers(partition, key) - {self._name(partition)}
        return [f"{key}@{writer}" for writer in sorted(writers)]

    def _name(self, partition: int) -> str:
        return f"{self._writer}.{cast(RowStore, self._table.data).tenure(partition)}"

    async def _remove(self, partition: int, keys: Sequence[str]) -> None:
        if keys:
            dead = [Outgoing(key.encode(), None) for key in keys]
            await (await self._sender.send_run(self._table.changelog_topic_name, partition, dead))
