"""A crash anywhere changes nothing: replaying from the commit repeats outputs under the same ids and loses none."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from enginebusy import POLICY, busy_log
from enginelog import Cut, Log, Merged, Record, books, engine, outputs, versions
from spendbrake.actions.policies.state import LadderState
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.judge.tiering import Tiering
from spendbrake.streams.engine.outcome import Outcome, OutRecord, Row
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, dirty_teams, restore
from spendbrake.streams.engine.step import Engine

SEEDS = (3, 11, 16)


def new_engine() -> Engine:
    return engine(versions=versions(*POLICY))


class Disk:
    """Rows that were acknowledged, and the commit."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.committed: int | None = None


class Worker:
    """Steps a log as a worker does: outputs, heads, series, blocks, the partition's row, the commit."""

    def __init__(
        self,
        log: Sequence[Record],
        disk: Disk,
        rnd: random.Random,
        sent: list[OutRecord],
        make: Callable[[], Engine] = new_engine,
        number: int = 0,
    ) -> None:
        self.log, self.disk, self.rnd, self.sent = log, disk, rnd, sent
        self.engine, self.number = make(), number
        self.state: PartitionState = self.engine.new_state(number, 1)
        restore(self.state, disk.rows, disk.committed)
        self.at = disk.committed or 0

    def step(self) -> None:
        size = self.rnd.randrange(1, 60)
        cut = Cut(self.log[self.at : self.at + size], self.at, self.number)
        if len(cut.offsets):
            self.sent += self.engine.step(self.state, cut).records
            self.at += len(cut.offsets)

    def snapshot(self) -> Iterator[None]:
        """Store what has changed while the log goes on; the process may die at each yield."""
        if self.state.replaying:
            return
        self.state.mark()
        cut, teams = self.state.applied + 1, dirty_teams(self.state)
        for team in teams:
            self.sent += self.engine.flush(self.state)
            unit = copy_team(self.state, team)
            yield from self._write(unit.heads)
            yield from self._write(unit.series)
            if self.rnd.random() < 0.3:
                self.step()
        self.sent += self.engine.flush(self.state)
        blocks, partition = copy_blocks(self.state), copy_partition(self.state)
        yield from self._write(blocks, shuffled=False)
        yield from self._write([partition])
        self.disk.committed = cut
        yield

    def _write(self, rows: Iterable[Row], *, shuffled: bool = True) -> Iterator[None]:
        some = list(rows)
        if shuffled:
            self.rnd.shuffle(some)
        for row in some:
            yield
            self.disk.rows[row.key] = row.value


def crashing(log: Log, seed: int, deadly: float = 0.05) -> tuple[PartitionState, list[OutRecord], int]:
    """Return the state at the end, everything that was sent, and the number of crashes."""
    rnd = random.Random(seed)
    disk, crashes, sent = Disk(), 0, list[OutRecord]()
    worker = Worker(log.records, disk, rnd, sent)
    while worker.at < len(log.records):
        worker.step()
        if rnd.random() > 0.3 or worker.at == len(log.records):
            continue
        if any(rnd.random() < deadly for _ in worker.snapshot()) or rnd.random() < 0.2:
            crashes += 1
            worker = Worker(log.records, disk, rnd, sent)
    return worker.state, sent, crashes


def calm(log: Log, size: int, of: Engine | None = None) -> tuple[PartitionState, list[OutRecord]]:
    of = of or new_engine()
    state = of.new_state(0, 1)
    outcomes: list[Outcome] = [of.step(state, cut) for cut in log.every(size)]
    return state, [record for outcome in outcomes for record in outcome.records] + of.flush(state)


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_change_neither_totals_nor_outputs(seed: int) -> None:
    log = busy_log(seed, 400)
    expected, told = calm(log, 97)
    state, sent, crashes = crashing(log, seed)
    assert crashes > 1
    assert len(outputs(told)["actions.v1"]) > 8
    for topic, records in outputs(told).items():
        assert outputs(sent)[topic] == records, topic
    assert books(state) == books(expected)
    assert Merged(sent) == Merged(told)


@pytest.mark.parametrize("seed", SEEDS)
def test_where_batches_are_cut_changes_nothing(seed: int) -> None:
    log = busy_log(seed, 300)
    state, told = calm(log, 300)
    for size in (1, 61):
        other, sent = calm(log, size)
        assert books(other) == books(state)
        for topic in outputs(told):
            assert outputs(sent)[topic] == outputs(told)[topic], (topic, size)
        assert Merged(sent) == Merged(told)


def test_a_log_that_is_read_again_from_its_start_over_all_rows_adds_nothing() -> None:
    log = busy_log(7, 300)
    disk = Disk()
    first = Worker(log.records, disk, random.Random(7), [])
    while first.at < len(log.records):
        first.step()
    for _ in first.snapshot():
        pass
    disk.committed = None
    second = Worker(log.records, disk, random.Random(8), [])
    while second.at < len(log.records):
        second.step()
    assert books(second.state) == books(first.state)
    assert outputs(second.sent)["actions.v1"] == set()


def incidents_end(state: PartitionState) -> dict[str, float]:
    """Return when the detectors of teams with an open incident want the clock."""
    panels = {state.teams.names[team]: head.panel for team, head in state.heads.items() if head.panel is not None}
    return {name: at for name, panel in panels.items() if (at := panel.wants_until()) is not None}


def test_new_limits_right_after_a_restart_leave_the_end_of_an_incident_due() -> None:
    log, disk = busy_log(3, 500), Disk()
    first = Worker(log.records, disk, random.Random(3), [])
    while not (open_ones := incidents_end(first.state)):
        first.step()
    for row in (row for team in dirty_teams(first.state) for row in copy_team(first.state, team).heads):
        disk.rows[row.key] = row.value
    name, ends = open_ones.popitem()
    second = Worker(log.records, disk, random.Random(3), []).state
    team = second.teams.index[name]
    second.heads[team].ladder = LadderState()
    batch = Cut(log.records[:1], 0, 0)
    emit = Emitter(Outcome(last=0, now=second.now), batch, "usage.v1", b"secret of the tests")
    book = new_engine().book
    rules = book.at(second.now)
    Tiering(second, rules).prime(second.now)
    Judge(second, rules, emit, Routes(second, rules, book, 1)).measure(
        int(second.teams.series[team]), Moment.latest(second)
    )
    assert second.teams.due[team] == ends
