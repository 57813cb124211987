"""Deployments that go on with another number of partitions: as if they had had it from the start."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pytest

from enginelog import START, Cut, Log, Record, engine, event, policy
from rollupslog import Deployment, Teams
from rollupslog import engine as parents_engine
from rollupslog import tree as parents_tree
from spendbrake.schemas.action import Action
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord, Row
from spendbrake.streams.engine.parents import rows as parents
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_teams, dirty_teams, restore
from spendbrake.streams.offline.rehome import Move, applied_of, parent_rows, usage_rows

TEAMS = [f"team-{i}" for i in range(12)]
BLOCKS = 4
FILE = policy(defaults={"team": {"monthly_budget_usd": 1}})


class World:
    """All partitions of a usage log, stepped as they fill."""

    def __init__(self, partitions: int, document: dict[str, Any] = FILE) -> None:
        self.of, self.partitions = engine(document, partitions=partitions, blocks=BLOCKS), partitions
        self.logs = [Log() for _ in range(partitions)]
        self.states = [self.of.new_state(number, 1) for number in range(partitions)]
        self.sent: list[OutRecord] = []

    def put(self, events: Iterable[UsageEvent], now: float) -> None:
        for each in events:
            home = partition_of((each.team or "").encode(), self.partitions)
            self.logs[home].records.append(Record(encode(each), now, (each.team or "").encode()))
        for number, log in enumerate(self.logs):
            log.tick(now)
            state = self.states[number]
            first = state.applied + 1
            outcome = self.of.step(state, Cut(log.records[first:], first, number))
            state.mark()
            self.sent += outcome.records

    def rows(self) -> list[dict[str, bytes]]:
        return [stored(state) for state in self.states]

    def totals(self) -> dict[str, tuple[int, int]]:
        found = {}
        for state in self.states:
            for row, team in enumerate(state.teams.names):
                own = int(state.teams.series[row])
                cost, calls = (int(state.series.days.fields[name][own].sum()) for name in ("cost", "calls"))
                found[team] = cost, calls
        return found

    def verdicts(self) -> dict[str, list[str]]:
        made = [decode(Action, r.value or b"") for r in self.sent if r.topic == "actions.v1"]
        found = defaultdict(list)
        for action in made:
            if action.effect == "limits":
                assert action.partition == partition_of(action.node.encode(), self.partitions)
                found[action.node].append(action.verdict)
        return {node: [verdict for verdict, _ in groupby(given)] for node, given in found.items()}


def stored(state: PartitionState) -> dict[str, bytes]:
    units = copy_teams(state, dirty_teams(state))
    rows = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
    rows |= {row.key: row.value for row in copy_blocks(state)}
    partition = copy_partition(state)
    return rows | {f"{partition.key}|w-1.1": partition.value}


def moved_to(world: World, partitions: int, epoch: int = 2) -> World:
    """The same deployment with another number of partitions."""
    after = World(partitions)
    after.states = [after.of.new_state(number, epoch) for number in range(partitions)]
    rows: list[dict[str, bytes]] = [{} for _ in range(partitions)]
    for home, row in usage_rows(world.rows(), Move(world.partitions, partitions, epoch), BLOCKS):
        assert row.key not in rows[home]
        rows[home][keyed(row)] = row.value
    for state, mine in zip(after.states, rows, strict=True):
        restore(state, mine, 0)
    return after


def keyed(row: Row) -> str:
    return f"{row.key}|rehome.0" if row.key == "partition" else row.key


def calls(first: int, n: int, at: float, usd: float = 0.01) -> list[UsageEvent]:
    return [event(first + i, at, team=TEAMS[i % len(TEAMS)], cost=round(usd * 10**9)) for i in range(n)]


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 8), (4, 2), (2, 3), (1, 5), (3, 3)])
def test_after_a_move_totals_go_on_and_what_was_seen_before_is_not_counted_again(before: int, after: int) -> None:
    world, whole = World(before), World(after)
    for each in (world, whole):
        each.put(calls(0, 300, START), START + 1)
    moved = moved_to(world, after)
    assert moved.totals() == world.totals() == whole.totals()
    homes = {team: number for number, state in enumerate(moved.states) for team in state.teams.names}
    assert homes == {team: partition_of(team.encode(), after) for team in TEAMS}
    later = [*calls(0, 300, START), *calls(1_000, 60, START + 30)]
    for each in (moved, whole):
        each.put(later, START + 31)
    assert moved.totals() == whole.totals()


def test_a_limit_stands_after_a_move_and_is_the_new_homes_and_ends_with_its_month() -> None:
    world = World(2)
    world.put(calls(0, 48, START, 0.3), START + 1)
    assert {verdicts[-1] for verdicts in world.verdicts().values()} == {"block"}
    moved = moved_to(world, 6)
    moved.put(calls(500, 12, START + 60, 0.01), START + 61)
    assert moved.verdicts() == {}, "what stands is not ordered again"
    moved.put([], START + 40 * 86_400)
    assert moved.verdicts() == {team: ["allow"] for team in TEAMS}


def test_a_correction_after_a_move_takes_back_what_was_counted_before_it() -> None:
    world = World(2)
    world.put(calls(0, 24, START), START + 1)
    moved = moved_to(world, 4)
    first = event(3, START, team=TEAMS[3], cost=10_000_000)
    new = event(900, START, team=TEAMS[3], cost=4_000_000, kind="correction", replaces=first)
    moved.put([new], START + 20)
    assert moved.totals()[TEAMS[3]] == (2 * 10_000_000 - 10_000_000 + 4_000_000, 2)
    moved.put([event(901, START, team=TEAMS[3], cost=1, kind="correction", replaces=first)], START + 25)
    assert moved.totals()[TEAMS[3]] == (14_000_000, 2), "an id is replaced once"


def test_a_move_over_midnight_and_the_end_of_a_month_begins_both() -> None:
    world, whole = World(2), World(4)
    for each in (world, whole):
        each.put(calls(0, 48, START, 0.3), START + 1)
    moved = moved_to(world, 4)
    later = START + 30 * 86_400
    for each in (moved, whole):
        each.put(calls(500, 48, later, 0.3), later + 1)
    assert moved.totals() == whole.totals()
    assert {team: given[-2:] for team, given in moved.verdicts().items()} == {
        team: given[-2:] for team, given in whole.verdicts().items()
    }


def test_a_moved_state_is_stored_and_read_again_like_any_other() -> None:
    moved = moved_to(World(2), 4)
    world = World(2)
    world.put(calls(0, 300, START), START + 1)
    moved = moved_to(world, 4)
    moved.put(calls(1_000, 60, START + 30), START + 31)
    for state in moved.states:
        again = moved.of.new_state(state.number, 2)
        rows = stored(state)
        restore(again, rows, state.applied + 1)
        assert again.fingerprints.seen_at(0) == -1
        for i in range(300):
            known = partition_of(TEAMS[i % len(TEAMS)].encode(), 4) == state.number
            fingerprint = _fingerprint(i)
            assert (again.fingerprints.seen_at(fingerprint) >= 0) >= known
        before = {name: int(state.series.total[row]) for row, name in enumerate(n.label for n in state.series.names)}  # type: ignore[misc]
        after = {name: int(again.series.total[row]) for row, name in enumerate(n.label for n in again.series.names)}  # type: ignore[misc]
        assert before == after


def _fingerprint(i: int) -> int:
    from spendbrake.streams.engine.intake.columns import fingerprint_of

    return fingerprint_of("default", f"r{i}")


def test_nodes_above_the_teams_move_with_their_children_and_limits() -> None:
    groups = [(f"group-{i}", "billing_group", "acme", 10.0) for i in range(8)]
    document = parents_tree(("acme", "organization", None, None), *groups)
    world, teams = Deployment(parents_engine(document, partitions=2)), Teams()
    for i in range(8):
        teams.spend(f"t{i}", START, (i + 4) * 10**9)
        world.put(*teams.tell(f"group-{i}", START + 1, f"t{i}"))
    world.tick(START + 5)
    rows = []
    for number in range(2):
        state = world.state(number)
        state.mark()
        units = parents.copy_parents(state, parents.dirty_parents(state))
        mine = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
        rows.append(mine | {"partition|w-1": parents.copy_partition(state).value})
    after = Deployment(parents_engine(document, partitions=4))
    placed: list[dict[str, bytes]] = [{} for _ in range(4)]
    for home, row in parent_rows(rows, Move(2, 4, 2)):
        placed[home][keyed(row)] = row.value
    for number in range(4):
        after.states[number] = after.of.new_state(number, 2)
        parents.restore(after.states[number], placed[number], 0)
    everyone = ["acme", *(node for node, *_ in groups)]
    assert [after.spent(node) for node in everyone] == [world.spent(node) for node in everyone]
    for i in range(8):
        teams.spend(f"t{i}", START + 60, 10**9)
        teams.offsets[f"t{i}"] = 0
        for record in teams.tell(f"group-{i}", START + 61, f"t{i}"):
            after.put(newer(record))
    after.tick(START + 70)
    assert after.spent("acme") == world.spent("acme") + 8 * 10**9
    made = [decode(Action, record.value or b"") for record in after.records("actions.v1")]
    assert {a.node for a in made if a.verdict == "block"} == {"group-5"}, "the others were blocked before"


def newer(record: Record) -> Record:
    """A rollup of the new incarnation."""
    from dataclasses import replace

    from rollupslog import record as rolled
    from spendbrake.schemas.decision import Stamp
    from spendbrake.schemas.rollup import Rollup

    told = decode(Rollup, record.value or b"")
    children = tuple(replace(c, stamp=Stamp(epoch=2, offset=c.stamp.offset)) for c in told.children)
    return rolled(replace(told, children=children), record.at)


def test_how_far_rows_go_is_told_by_the_partition() -> None:
    world = World(2)
    world.put(calls(0, 24, START), START + 1)
    assert [applied_of(rows) for rows in world.rows()] == [state.applied for state in world.states]
    assert applied_of({}) == -1
