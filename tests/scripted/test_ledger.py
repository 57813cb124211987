"""The ledger of notifications on a changelog that compaction has been at or not, with workers that write late."""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport import base
from faust.types import TP

from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.ledger import KEEP_S, Entry
from spendbrake.streams.transport.app import Delivery, create_app
from spendbrake.streams.transport.port import Outgoing
from spendbrake.streams.transport.store import RowLog, RowStore, changelog_name, declare_table
from spendbrake.streams.workers.notify.alerts import Firing
from spendbrake.streams.workers.notify.ledger import Ledgers, PartitionLedger
from unit.delivery.test_runner import ACTION

TOPIC = changelog_name("notify", "ledger")
INTENT = Entry(attempts=1, at=10.0)
DONE = Entry(attempts=1, at=11.0, outcome="done")
ALERT = Held(action=ACTION, heard_at=1.0, origin="actions.v1/0/7")


class Changelog:
    """One partition of it; what is sent to it is there at once."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.records, self.generation = directory, list[tuple[bytes, bytes | None]](), 0

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        assert topic == TOPIC
        self.records += [(record.key or b"", record.value) for record in records]
        return asyncio.sleep(0)

    def compact(self) -> None:
        last = {key: place for place, (key, _) in enumerate(self.records)}
        self.records = [
            (key, value) for place, (key, value) in enumerate(self.records) if last[key] == place and value is not None
        ]

    async def start(self) -> PartitionLedger:
        """Give the partition to a new process, which reads what is there."""
        self.generation += 1
        ledgers = Ledgers()
        app = create_app(
            "notify",
            broker="kafka://127.0.0.1:1",
            delivery=Delivery(topics=frozenset()),
            data_dir=self.directory,
            transport=base.Transport,
        )
        table = declare_table(app, "ledger", partitions=1, rows=ledgers)
        await cast(RowStore, table.data).on_rebalance({TP(TOPIC, 0)}, set(), set(), self.generation)
        messages = [SimpleNamespace(message=SimpleNamespace(partition=0, key=k, value=v)) for k, v in self.records]
        table.apply_changelog_batch(cast(Any, messages))
        return ledgers.open(0, self.generation, RowLog(table, self, f"w{self.generation}"))


@pytest.fixture
def changelog(tmp_path: Path) -> Changelog:
    return Changelog(tmp_path)


@pytest.mark.parametrize("compacted", [False, True])
async def test_an_alert_that_was_let_go_stays_gone(changelog: Changelog, compacted: bool) -> None:
    first = await changelog.start()
    await first.hold("trouble", ALERT)
    await first.let_go("trouble", 20.0)
    if compacted:
        changelog.compact()
    assert (await changelog.start()).held() == {}


@pytest.mark.parametrize("compacted", [False, True])
async def test_an_alert_that_was_let_go_is_not_brought_back_by_who_held_it_before(
    changelog: Changelog, compacted: bool
) -> None:
    frozen = await changelog.start()
    await frozen.hold("trouble", ALERT)
    successor = await changelog.start()
    await successor.let_go("trouble", 20.0)
    await frozen.hold("trouble", ALERT)  # thawed, it writes what it had in mind
    if compacted:
        changelog.compact()
    assert (await changelog.start()).held() == {}
    firing = Firing()
    firing.read(changelog.records)
    assert list(firing(None)) == [], "and mutes nobody in other processes"


async def test_an_alert_that_is_let_go_while_it_is_being_kept_is_gone(changelog: Changelog) -> None:
    ledger = await changelog.start()
    await asyncio.gather(ledger.hold("trouble", ALERT), ledger.let_go("trouble", 20.0))
    assert (await changelog.start()).held() == {}


async def test_an_alert_that_was_never_kept_leaves_no_row(changelog: Changelog) -> None:
    await (await changelog.start()).let_go("trouble", 20.0)
    assert changelog.records == []


async def test_an_alert_may_come_again(changelog: Changelog) -> None:
    first = await changelog.start()
    await first.hold("trouble", ALERT)
    await first.let_go("trouble", 20.0)
    await first.hold("trouble", ALERT)
    assert set((await changelog.start()).held()) == {"trouble"}
    firing = Firing()
    firing.read(changelog.records)
    assert list(firing(None)) == [ACTION]


@pytest.mark.parametrize("compacted", [False, True])
async def test_what_has_expired_stays_out(changelog: Changelog, compacted: bool) -> None:
    first = await changelog.start()
    await first.put("a", DONE)
    await first.hold("trouble", ALERT)
    await first.let_go("trouble", 20.0)
    second = await changelog.start()
    assert await second.expire(20.0 + KEEP_S) == 1
    if compacted:
        changelog.compact()
    third = await changelog.start()
    assert (third.get("a"), third.held()) == (None, {})
    assert await third.expire(20.0 + KEEP_S) == 0


async def test_an_intent_that_others_have_found_survives_their_late_tombstones(changelog: Changelog) -> None:
    first = await changelog.start()
    await first.put("a", INTENT)
    frozen, successor = await changelog.start(), await changelog.start()
    await successor.put("b", DONE)
    await frozen.put("a", DONE)  # what it has brought is brought; the first one's key goes
    changelog.compact()
    third = await changelog.start()
    assert (third.get("a"), third.get("b")) == (DONE, DONE)
