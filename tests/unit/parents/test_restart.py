"""A crash anywhere changes nothing: replaying from the commit repeats outputs byte for byte and loses none."""

import random
from collections.abc import Iterator, Sequence

import pytest

from enginelog import Cut, Record
from rollupslog import START, USD, Teams, as_record, cuts, engine, internal, tick, tree
from spendbrake.streams.engine.outcome import Outcome, Row
from spendbrake.streams.engine.parents.rows import copy_parent, copy_partition, dirty_parents, restore
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.state.codec import unpack
from spendbrake.streams.engine.state.rows import STANDS_ON, LostState

KEYS = ("UTC/1", "America/New_York/10")
BEFORE = tree(
    ("acme", "organization", None, 300),
    ("bg-1", "billing_group", "acme", 200),
    ("bg-2", "billing_group", "acme", 100),
    ("ops", "department", "bg-1", 90),
    ("web", "department", "bg-2", None),
)
BEFORE["nodes"][2]["calendar"] = {"timezone": "America/New_York", "month_starts_on": 10}
AFTER = tree(
    ("acme", "organization", None, 900),
    ("bg-1", "billing_group", "acme", 60),
    ("bg-2", "billing_group", "acme", 300),
    ("ops", "department", "bg-2", 200),
)
AFTER["nodes"][2]["calendar"] = BEFORE["nodes"][2]["calendar"]
RESERVES = ({"acme": 100, "bg-1": 40}, {"acme": 70, "bg-2": 30})
for file, reserves in zip((BEFORE, AFTER), RESERVES, strict=True):
    file["nodes"] = [{**node, "reserve_usd": reserves.get(node["id"])} for node in file["nodes"]]
    file["defaults"] = {"team": {"monthly_budget_usd": 5}}
OF = engine(BEFORE, AFTER, begins=(START + 12 * 86_400,))
HOMES = {**{f"t{i}": "ops" for i in range(20)}, "u": "bg-1", "v": "bg-2", "w": "web"}


def busy_log(seed: int, n: int = 400) -> list[Record]:
    """Forty days: spend, repeats of old records, corrections, poison, ticks; what parents tell comes back in."""
    rnd, teams, now = random.Random(seed), Teams(KEYS), START
    state = OF.new_state(0, 1)
    log: list[Record] = []
    sent: list[Record] = []
    for _ in range(n):
        now += rnd.choice((0.0, 0.1, 0.3, 2.0, 500.0, 40_000.0))
        kind = rnd.random()
        if kind < 0.08 and sent:
            fresh = [Record(old.value, now, old.key, old.headers) for old in rnd.sample(sent, min(3, len(sent)))]
        elif kind < 0.12:
            fresh = [rnd.choice([Record(b"{}", now), internal("rollup", now, b"ops", b"\0\0"), Record(None, now)])]
        elif kind < 0.25:
            fresh = [tick(now)]
        else:
            some = rnd.sample(sorted(HOMES), rnd.randrange(1, 4))
            for team in some:
                amount = rnd.randrange(6 * USD) * rnd.choice((1, 1, 1, 1, -1))
                teams.spend(team, now - rnd.choice((0, 0, 0, 50, 4_000, 90_000, 2_000_000)), amount)
            fresh = [one for team in some for one in teams.tell(HOMES[team], now, team)]
            sent += fresh
        while fresh:
            first = len(log)
            log += fresh
            outcome = OF.step(state, Cut(log[first:], first, 0, "rollups.v1"))
            fresh = [as_record(out) for out in outcome.records if out.topic == "rollups.v1"]
    return log


def outputs(outcomes: Sequence[Outcome]) -> dict[str, set[tuple[bytes | None, bytes | None]]]:
    found: dict[str, set[tuple[bytes | None, bytes | None]]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            found.setdefault(record.topic, set()).add((record.key, record.value))
    return found


def sums(state: ParentsState) -> dict[tuple[str, str], object]:
    return {
        (node, key): (
            {m: n for m, n in book.months.items() if n},
            {m: n for m, n in book.calls.items() if n},
            {d: n for d, n in book.days.items() if n},
            book.closed,
            book.first_day,
        )
        for node, parent in state.parents.items()
        for key, book in parent.totals.books.items()
    }


class Disk:
    """Rows that were acknowledged, and the commit."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.committed: int | None = None


def snapshot(state: ParentsState, disk: Disk) -> Iterator[None]:
    """Write everything in the order that holds, once rows have caught up; the process may die at each yield."""
    if state.replaying:
        return
    state.mark()
    cut = state.applied + 1
    for node in dirty_parents(state):
        unit = copy_parent(state, node)
        yield from write(unit.heads, disk)
        yield from write(unit.series, disk)
    yield from write([copy_partition(state)], disk)
    disk.committed = cut
    yield


def write(rows: Sequence[Row], disk: Disk) -> Iterator[None]:
    for row in rows:
        yield
        disk.rows[row.key] = row.value


def crashing(log: list[Record], seed: int) -> tuple[ParentsState, list[Outcome], int]:
    rnd = random.Random(seed)
    disk, outcomes, crashes = Disk(), [], 0
    state, at = OF.new_state(0, 1), 0
    while at < len(log):
        step = rnd.randrange(1, 25)
        outcomes.append(OF.step(state, Cut(log[at : at + step], at, 0, "rollups.v1")))
        at += step
        if rnd.random() < 0.4:
            done = False
            for _ in snapshot(state, disk):
                if rnd.random() < 0.06:
                    break
            else:
                done = True
            if done and rnd.random() < 0.7:
                continue
            crashes += 1
            state = OF.new_state(0, 1)
            restore(state, disk.rows, disk.committed)
            at = disk.committed or 0
    return state, outcomes, crashes


@pytest.mark.parametrize("seed", range(6))
def test_crashes_change_neither_totals_nor_outputs(seed: int) -> None:
    log = busy_log(seed)
    calm = OF.new_state(0, 1)
    told = outputs([OF.step(calm, cut) for cut in cuts(log, 97)])
    state, outcomes, crashes = crashing(log, seed)
    assert crashes > 3
    assert len(told["actions.v1"]) >= 4
    assert outputs(outcomes) == told
    assert sums(state) == sums(calm)


def test_where_batches_are_cut_changes_nothing() -> None:
    log = busy_log(99, 300)
    results = []
    for size in (1, 7, len(log)):
        state = OF.new_state(0, 1)
        results.append((outputs([OF.step(state, cut) for cut in cuts(log, size)]), sums(state)))
    assert results[0] == results[1] == results[2]


def test_money_is_neither_lost_nor_made_on_the_way_up() -> None:
    log = busy_log(5)
    state = OF.new_state(0, 1)
    for cut in cuts(log, 50):
        OF.step(state, cut)
    fresh = [tick(state.now + 1)]
    while fresh:
        outcome = OF.step(state, Cut(fresh, state.applied + 1, 0, "rollups.v1"))
        fresh = [as_record(out) for out in outcome.records] + [tick(state.now + 1)] * bool(outcome.records)
    groups = [state.parents[node].totals.book("UTC/1").months for node in ("bg-1", "bg-2")]
    for month, amount in state.parents["acme"].totals.book("UTC/1").months.items():
        assert amount == sum(group[month] for group in groups)


def test_the_clock_at_a_commit_may_be_known_to_another_writer_than_the_furthest() -> None:
    rows = {}
    for writer, ends in (("w1", (9, 29)), ("w2", (19,))):
        state = OF.new_state(0, 1)
        for end in ends:
            log = [tick(START + n) for n in range(end + 1)]
            OF.step(state, Cut(log[state.applied + 1 :], state.applied + 1, 0, "rollups.v1"))
            state.mark()
        rows[f"partition|{writer}"] = copy_partition(state).value
    for committed in (10, 20, 30):
        state = OF.new_state(0, 1)
        restore(state, rows, committed)
        assert (state.applied, state.now, state.emitted) == (committed - 1, START + committed - 1, 29)
    with pytest.raises(LostState, match="no clock"):
        restore(OF.new_state(0, 1), rows, 15)


def test_rows_of_a_commit_whose_clock_is_unknown_are_refused() -> None:
    state = OF.new_state(0, 1)
    OF.step(state, Cut([tick(START)], 0, 0, "rollups.v1"))
    state.mark()
    row = copy_partition(state)
    with pytest.raises(LostState, match="no clock"):
        restore(OF.new_state(0, 1), {row.key: row.value}, 7)


def test_everything_is_stored_anew_before_the_first_commit() -> None:
    state, disk = OF.new_state(0, 1), Disk()
    log = busy_log(3, 60)
    OF.step(state, Cut(log, 0, 0, "rollups.v1"))
    for _ in snapshot(state, disk):
        pass
    again, anew = OF.new_state(0, 1), Disk()
    restore(again, disk.rows, disk.committed)
    for _ in snapshot(again, anew):
        pass
    assert anew.rows.keys() == disk.rows.keys()


def test_children_name_the_head_they_go_with() -> None:
    log = busy_log(3, 120)
    state, first = OF.new_state(0, 1), len(log) // 2
    OF.step(state, Cut(log[:first], 0, 0, "rollups.v1"))
    assert {stands_on(row) for node in dirty_parents(state) for row in copy_parent(state, node).series} == {first - 1}
    OF.step(state, Cut(log[first:], first, 0, "rollups.v1"))
    ops, heads = state.parents["ops"], set(state.dirty_heads)
    assert ops.dirty
    state.dirty_heads.discard("ops")
    assert {stands_on(row) for row in copy_parent(state, "ops").series} == {first - 1}, "its head is the old one"
    others = sorted(heads - {"ops"})
    assert others
    assert {stands_on(row) for node in others for row in copy_parent(state, node).series} <= {len(log) - 1}


def stands_on(row: Row) -> int | None:
    stand = unpack(row.value)[1].get(STANDS_ON)
    return None if stand is None else int(stand)


def test_after_hours_of_silence_a_restarted_worker_tells_what_another_would() -> None:
    teams = Teams(KEYS)
    log: list[Record] = []
    for n in range(2):  # the second within a quarter of a second: it is told later
        teams.spend("t1", START, USD)
        log += teams.tell("ops", START + n / 10, "t1")
    state = OF.new_state(0, 1)
    OF.step(state, Cut(log, 0, 0, "rollups.v1"))
    disk = Disk()
    for _ in snapshot(state, disk):
        pass
    restarted = OF.new_state(0, 1)
    restore(restarted, disk.rows, disk.committed)
    later = Cut([tick(START + 10_800)], len(log), 0, "rollups.v1")
    told = outputs([OF.step(state, later)])
    assert told["rollups.v1"]
    assert outputs([OF.step(restarted, later)]) == told
