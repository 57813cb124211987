"""Random lives of workers: at any time they are frozen, die, are followed and thaw; rows come late; logs are compacted.

Whatever happens, the totals are those of one worker that nothing happened to, and so are the ids of what was sent.
"""

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from enginebusy import POLICY, busy_log
from enginelog import Log, Merged, books, engine, versions
from scripted.cluster import Cluster, Process, settle
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.step import Engine
from spendbrake.streams.workers.parents import Parents
from unit.parents.test_restart import OF as PARENTS
from unit.parents.test_restart import busy_log as rollups
from unit.parents.test_restart import cuts, sums

SEEDS = (1, 5, 7, 9, 10)


def new_engine() -> Engine:
    return engine(versions=versions(*POLICY))


def told(records: Iterable[OutRecord]) -> set[tuple[str, object]]:
    """Ids of what was sent; rollups apart: they tell of states (see Merged)."""
    return {(record.topic, _id(record)) for record in records if record.topic != "rollups.v1"}


def _id(record: OutRecord) -> object:
    if record.topic == "findings.v1":
        return decode(Finding, record.value or b"").id
    return decode(Action, record.value or b"").id if record.topic == "actions.v1" else record.value


class Lives:
    """The owner of the partition and those before it that do not know they are no longer.

    Attributes:
        deaths: Processes that ended in the middle of something.
    """

    def __init__(self, cluster: Cluster, rnd: random.Random) -> None:
        self.cluster, self.rnd = cluster, rnd
        self.owner: Process | None = None
        self.ghosts: list[Process] = []
        self.tasks: dict[Process, list[asyncio.Future[None]]] = {}
        self.deaths = 0

    async def run(self) -> Process:
        while self.owner is None or not self.owner.done:
            if self.owner is None:
                await self.follow()
            await self.turn()
        for ghost in list(self.ghosts):
            await self.end(ghost)
        self.owner.hold = False
        await self.calm(self.owner)
        await self.owner.finish()
        return self.owner

    async def follow(self) -> None:
        """Give the partition to a new process, or back to one that has had it."""
        if self.ghosts and self.rnd.random() < 0.4:
            self.owner = self.ghosts.pop(self.rnd.randrange(len(self.ghosts)))
            await self.calm(self.owner)  # it hears that it was followed, and stores what it has
            await self.cluster.give_back(self.owner)
        else:
            self.owner = await self.cluster.start()
        self.owner.hold = True
        self.tasks[self.owner] = []

    async def turn(self) -> None:
        """Let one thing happen."""
        process = self.rnd.choice([self.owner, self.owner, self.owner, *self.ghosts])
        assert process is not None
        kind = self.rnd.random()
        if kind < 0.25:
            if not any(not task.done() for task in self.tasks[process]):
                self.tasks[process].append(asyncio.ensure_future(process.feed(self.rnd.randrange(1, 25))))
        elif kind < 0.40:
            self.tasks[process].append(asyncio.ensure_future(process.take()))
        elif kind < 0.96:
            self.answer(process)
        elif kind < 0.97:
            await self.end(process)
        elif kind < 0.985 and process is self.owner:
            self.ghosts.append(process)
            self.owner = None
        else:
            self.cluster.compact()
        await settle()
        for task in [task for tasks in self.tasks.values() for task in tasks if task.done()]:
            task.result()  # an exception would end the process, and so would its next start

    def answer(self, process: Process) -> None:
        """Have the broker store, or acknowledge, the oldest run under way to some partition."""
        places = {(sending.topic, sending.partition): sending for sending in reversed(process.under_way)}
        if places:
            sending = self.rnd.choice(list(places.values()))
            if sending.stored or self.rnd.random() < 0.5:
                process.answer(sending)
            else:
                self.cluster.store(sending)

    async def end(self, process: Process) -> None:
        """Kill a process; of what it had under way the broker may have got any part, in order."""
        self.deaths += bool(process.under_way)
        lost = set()
        for sending in process.under_way:
            place = sending.topic, sending.partition
            if not sending.stored and (place in lost or self.rnd.random() < 0.5):
                lost.add(place)
            elif not sending.stored:
                self.cluster.store(sending)
        for task in self.tasks.pop(process):
            task.cancel()
        await settle()
        if process is self.owner:
            self.owner = None
        else:
            self.ghosts.remove(process)

    async def calm(self, process: Process) -> None:
        while any(not task.done() for task in self.tasks[process]) or process.under_way:
            for sending in list(process.under_way):
                process.answer(sending)
            await settle()
        for task in self.tasks[process]:
            task.result()


def calm(log: Log) -> tuple[object, list[OutRecord]]:
    of = new_engine()
    state = of.new_state(0, 1)
    sent = [record for cut in log.every(97) for record in of.step(state, cut).records] + of.flush(state)
    return books(state), sent


@pytest.mark.parametrize("seed", SEEDS)
async def test_however_workers_live_and_die_everything_is_counted_and_told_once(seed: int, tmp_path: Path) -> None:
    log = busy_log(seed, 300)
    expected, sent = calm(log)
    lives = Lives(Cluster(log.records, new_engine, tmp_path), random.Random(seed))
    last = await lives.run()
    assert lives.deaths > 2
    assert books(last.state) == expected
    assert told(lives.cluster.sent) == told(sent)
    assert Merged(lives.cluster.sent) == Merged(sent)


@pytest.mark.parametrize("seed", SEEDS)
async def test_so_is_what_nodes_above_the_teams_come_to_and_tell(seed: int, tmp_path: Path) -> None:
    log = rollups(seed, 250)
    calm = PARENTS.new_state(0, 1)
    sent = [record for cut in cuts(log, 97) for record in PARENTS.step(calm, cut).records]
    lives = Lives(Cluster(log, lambda: PARENTS, tmp_path, kind=Parents), random.Random(seed))
    last = await lives.run()
    assert lives.deaths > 2
    assert sums(last.state) == sums(calm)
    assert {(r.topic, r.key, r.value) for r in lives.cluster.sent} == {(r.topic, r.key, r.value) for r in sent}
