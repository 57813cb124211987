"""Parents judged: a cap fires once and at the exact total, whatever partitions its children are on."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest

from enginelog import Cut, Record
from rollupslog import START, USD, Deployment, Teams, engine, internal, record, tick, tree
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.parents.rows import copy_parent, copy_partition, restore

DAY = 86_400.0
THREE = tree(
    ("acme", "organization", None, 100),
    ("bg-1", "billing_group", "acme", None),
    ("bg-2", "billing_group", "acme", 1000),
    ("ops", "department", "bg-1", None),
)


def actions(at: Deployment) -> list[Action]:
    return [decode(Action, out.value or b"") for out in at.records("actions.v1")]


def findings(at: Deployment) -> list[Finding]:
    return [decode(Finding, out.value or b"") for out in at.records("findings.v1")]


def caps(at: Deployment, node: str) -> list[Finding]:
    return [f for f in findings(at) if f.tier == "hard-cap" and f.node == node]


def test_a_cap_of_the_organization_fires_once_at_the_exact_total_over_all_partitions() -> None:
    at, teams = Deployment(engine(THREE, partitions=5)), Teams()
    assert len({partition_of(node.encode(), 5) for node in ("acme", "bg-1", "bg-2", "ops")}) > 1
    homes = {"a": "bg-1", "b": "bg-2", "c": "ops"}
    now = START
    for i in range(120):
        now += 0.4
        team = "abc"[i % 3]
        teams.spend(team, now, USD)
        at.put(*teams.tell(homes[team], now, team))
        at.tick(now + 0.3)
        due = i + 1 >= 100
        assert len(caps(at, "acme")) == due, i
    cap = caps(at, "acme")[0]
    assert cap.evidence["amount_nano"] == 100 * USD
    assert (cap.team, cap.state, cap.current) == ("", "open", True)
    assert [(a.node, a.verdict, a.partition) for a in actions(at)] == [
        ("acme", "block", partition_of(b"acme", 5)),
    ]
    assert at.spent("acme") == 120 * USD
    assert (at.spent("bg-1"), at.spent("bg-2"), at.spent("ops")) == (80 * USD, 40 * USD, 40 * USD)


def test_a_new_month_lifts_the_block_by_a_tick() -> None:
    at, teams = Deployment(engine(THREE)), Teams()
    teams.spend("a", START, 150 * USD)
    at.put(*teams.tell("bg-1", START, "a"))
    at.tick(START + 1)
    assert [a.verdict for a in actions(at)] == ["block"]
    february = START + 27 * DAY
    at.tick(february - 1)
    assert len(actions(at)) == 1
    at.tick(february + 1)
    assert [a.verdict for a in actions(at)] == ["block", "allow"]
    assert caps(at, "acme")[-1].state == "resolve"
    teams.spend("a", february + 2, 100 * USD)
    at.put(*teams.tell("bg-1", february + 2, "a"))
    at.tick(february + 3)
    assert [a.verdict for a in actions(at)] == ["block", "allow", "block"]
    assert actions(at)[0].id != actions(at)[2].id


def test_money_that_goes_down_lifts_the_block_and_arms_it_again() -> None:
    at, teams = Deployment(engine(THREE)), Teams()
    for i, amount in enumerate((100 * USD, -USD, USD)):
        teams.spend("a", START + i, amount)
        at.put(*teams.tell("bg-1", START + i, "a"))
    at.tick(START + 5)
    assert [a.verdict for a in actions(at)] == ["block", "allow", "block"]
    assert len({a.id for a in actions(at)}) == 3


def test_late_money_of_the_month_before_is_a_finding_only() -> None:
    at, teams = Deployment(engine(THREE)), Teams()
    january = START + 26 * DAY
    teams.spend("a", january, 60 * USD)
    at.put(*teams.tell("bg-1", january, "a"))
    february = START + 28 * DAY
    at.tick(february)
    teams.spend("a", january, 60 * USD)
    at.put(*teams.tell("bg-1", february + 1, "a"))
    at.tick(february + 2)
    cap = caps(at, "acme")
    assert [(c.period, c.current, c.evidence["amount_nano"]) for c in cap] == [("2026-01", False, 120 * USD)]
    assert actions(at) == []


def test_a_parent_tells_four_times_a_second_at_most_and_all_in_the_end() -> None:
    at, teams = Deployment(engine(THREE)), Teams()
    for i in range(1000):
        now = START + i / 100
        teams.spend("a", now, USD)
        at.put(*teams.tell("bg-1", now, "a"))
    told = [decode(Rollup, out.value or b"") for out in at.records("rollups.v1")]
    times = [rollup.now for rollup in told]
    assert min(b - a for a, b in pairwise(times)) >= 0.25
    assert len(told) == 40
    at.tick(now + 0.3)
    assert at.spent("acme") == 1000 * USD


def test_a_forecast_of_the_day_arms_after_three_days() -> None:
    document = tree(("acme", "organization", None, None), ("bg-1", "billing_group", "acme", None))
    at, teams = Deployment(engine(document)), Teams()
    for day in range(3):
        teams.spend("a", START + day * DAY, 20 * USD)
        at.put(*teams.tell("bg-1", START + day * DAY, "a"))
    assert findings(at) == []
    teams.spend("a", START + 3 * DAY, 10 * USD)
    at.put(*teams.tell("bg-1", START + 3 * DAY, "a"))
    assert [(f.node, f.tier, f.evidence["base_nano"]) for f in findings(at)] == [
        ("bg-1", "half-day", 20 * USD),
        ("acme", "half-day", 20 * USD),
    ]


MOVED = tree(
    ("acme", "organization", None, 100),
    ("bg-1", "billing_group", "acme", None),
    ("bg-2", "billing_group", "acme", 1000),
    ("ops", "department", "bg-2", None),
)


def test_a_parent_that_moves_leaves_behind_what_was_spent() -> None:
    at, teams = Deployment(engine(THREE, MOVED, THREE, begins=(START + 100, START + 200), partitions=4)), Teams()
    for i, now in enumerate((START, START + 120, START + 220), 1):
        at.tick(now)
        teams.spend("c", now, i * USD)
        at.put(*teams.tell("ops", now, "c"))
        at.tick(now + 1)
        assert at.spent("acme") == at.spent("ops") == sum(range(i + 1)) * USD
    assert (at.spent("bg-1"), at.spent("bg-2")) == (4 * USD, 2 * USD)
    bg_2 = at.state(partition_of(b"bg-2", 4)).parents["bg-2"]
    assert bg_2.children["ops"].retired
    assert not at.state(partition_of(b"bg-1", 4)).parents["bg-1"].children["ops"].retired


def test_a_parent_that_is_removed_lifts_what_stood() -> None:
    small = tree(("acme", "organization", None, None), ("bg-1", "billing_group", "acme", 5))
    at, teams = Deployment(engine(small, tree(("acme", "organization", None, None)), begins=(START + 100,))), Teams()
    teams.spend("a", START, 6 * USD)
    at.put(*teams.tell("bg-1", START, "a"))
    assert [a.verdict for a in actions(at)] == ["block"]
    at.tick(START + 101)
    assert [(a.node, a.verdict) for a in actions(at)] == [("bg-1", "block"), ("bg-1", "allow")]
    assert at.spent("acme") == 6 * USD
    assert at.state(0).parents["acme"].children["bg-1"].retired


def test_a_higher_budget_lifts_the_block() -> None:
    low, high = (tree(("acme", "organization", None, b), ("bg-1", "billing_group", "acme", None)) for b in (5, 50))
    at, teams = Deployment(engine(low, high, begins=(START + 100,))), Teams()
    teams.spend("a", START, 6 * USD)
    at.put(*teams.tell("bg-1", START, "a"))
    at.tick(START + 101)
    assert [a.verdict for a in actions(at)] == ["block", "allow"]


def test_each_calendar_among_the_ancestors_has_exact_days() -> None:
    tokyo = {"timezone": "Asia/Tokyo", "month_starts_on": 25}
    document = tree(("acme", "organization", None, 100), ("bg-1", "billing_group", "acme", None))
    document["nodes"][0]["calendar"] = tokyo
    document["nodes"][1]["calendar"] = {"timezone": "UTC"}
    at, teams = Deployment(engine(document, partitions=3)), Teams(keys=("UTC/1", "Asia/Tokyo/25"))
    edge = START + 19 * DAY + 15 * 3600  # the 25th begins in Tokyo
    for at_, amount in ((edge - 1, 99), (edge, 70)):
        teams.spend("a", at_, amount * USD)
        at.put(*teams.tell("bg-1", at_, "a"))
        at.tick(at_ + 1)
    acme = at.state(partition_of(b"acme", 3)).parents["acme"]
    assert sorted(acme.totals.book("Asia/Tokyo/25").months.values()) == [70 * USD, 99 * USD]
    assert caps(at, "acme") == []


def bad(kind: str) -> Record:
    good = record(Rollup(parent="bg-1", calendar="UTC/1", now=START, children=()))
    if kind == "unsigned":
        return replace(good, headers=())
    if kind == "another secret":
        return internal("rollup", START, good.key or b"", good.value or b"", b"not ours")
    if kind == "another key":
        return replace(good, key=b"acme")
    if kind == "forward":
        return internal("forward", START, b"bg-1", good.value or b"")
    if kind == "calendar":
        return record(Rollup(parent="bg-1", calendar="Mars/1", now=START, children=()))
    return internal("rollup", START, b"bg-1", b"\0\0\0\0\5\1")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unsigned", "forged"),
        ("another secret", "forged"),
        ("another key", "forged"),
        ("forward", "unknown_kind"),
        ("calendar", "bad_type"),
        ("damaged", "truncated_avro"),
    ],
)
def test_what_is_no_rollup_goes_to_the_dead_letters(kind: str, reason: str) -> None:
    at = Deployment(engine(THREE))
    at.put(bad(kind))
    (dead,) = at.records("usage.dlq.v1")
    assert dict(dead.headers)["sb-reason"] == reason.encode()
    assert dict(dead.headers)["sb-origin"] == b"rollups.v1/0/0"


def test_a_rollup_in_the_wrong_partition_is_refused() -> None:
    of = engine(THREE, partitions=8)
    wrong = (partition_of(b"bg-1", 8) + 1) % 8
    one = record(Rollup(parent="bg-1", calendar="UTC/1", now=START, children=()))
    outcome = of.step(of.new_state(wrong, 1), Cut([one, tick(START)], 0, wrong, "rollups.v1"))
    assert [dict(r.headers)["sb-reason"] for r in outcome.records] == [b"misplaced"]


def test_what_a_parent_carries_over_follows_late_money_of_the_month_before_at_its_next_day() -> None:
    document = tree(("acme", "organization", None, None), ("apps", "billing_group", "acme", 100))
    document["nodes"][1]["rollover_percent"] = 10
    at, teams, february = Deployment(engine(document)), Teams(), START + 27 * DAY
    teams.spend("a", START, 95 * USD)
    at.put(*teams.tell("apps", START + 1, "a"))
    at.tick(february)
    teams.spend("a", february + 60, 104 * USD)
    at.put(*teams.tell("apps", february + 60, "a"))
    assert caps(at, "apps") == [], "a hundred, and five that are left of January"
    teams.spend("a", START, 3 * USD)
    at.put(*teams.tell("apps", february + 120, "a"))
    assert caps(at, "apps") == []
    at.tick(february + DAY)
    (cap,) = caps(at, "apps")
    assert (cap.state, cap.time, cap.evidence["base_nano"]) == ("open", february + DAY, 102 * USD)


def test_after_a_silence_of_months_a_parent_carries_over_what_the_month_right_before_has_left() -> None:
    document = tree(("acme", "organization", None, None), ("apps", "billing_group", "acme", 100))
    document["nodes"][1]["rollover_percent"] = 50
    of, teams = engine(document), Teams()
    teams.spend("a", START, 95 * USD)
    state = of.new_state(0, 1)
    log = [*teams.tell("apps", START + 1, "a"), tick(START + 65 * DAY)]
    of.step(state, Cut(log, 0, 0, "rollups.v1"))
    assert state.parents["apps"].tiers.allowance.rollover == 50 * USD


@pytest.mark.parametrize("restarted", [False, True])
def test_a_month_of_a_parent_leaves_what_its_own_limits_had_left(restarted: bool) -> None:
    document = tree(("acme", "organization", None, None), ("apps", "billing_group", "acme", 100))
    document["nodes"][1]["rollover_percent"] = 50
    richer = deepcopy(document)
    richer["nodes"][1]["monthly_budget_usd"] = 1_000
    february = START + 27 * DAY
    of, teams = engine(document, richer, begins=(february,)), Teams()
    teams.spend("a", START, 95 * USD)
    log = [*teams.tell("apps", START + 1, "a"), tick(START + 60)]
    state = of.new_state(0, 1)
    of.step(state, Cut(log, 0, 0, "rollups.v1"))
    if restarted:
        state.mark()
        unit = copy_parent(state, "apps")
        rows = {row.key: row.value for row in (*unit.heads, *unit.series, copy_partition(state))}
        state = of.new_state(0, 1)
        restore(state, rows, len(log))
    of.step(state, Cut([tick(february)], len(log), 0, "rollups.v1"))
    assert state.parents["apps"].tiers.allowance.rollover == 5 * USD
