"""A broken clock does not switch the brake off: money without a place in time is told of, and caps may count it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from enginelog import START, Log, Merged, engine, event, play, policy, versions
from rollupslog import Deployment, internal
from rollupslog import engine as parents_engine
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome, OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, dirty_teams, restore

USD, DAY_S = 10**9, 86_400
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
AHEAD = 3_600.0
"""Seconds: a clock so far ahead has no place."""
COUNTING = policy(caps_count_unplaced=True)


def records(outcomes: list[Outcome]) -> list[OutRecord]:
    return [record for outcome in outcomes for record in outcome.records]


def tiers(outcomes: list[Outcome]) -> list[tuple[float, str, str, str]]:
    found = [decode(Finding, r.value) for r in records(outcomes) if r.topic == "findings.v1" and r.value]
    return [(f.time, f.node, str(f.tier), f.state) for f in found]


def limits(outcomes: list[Outcome]) -> list[tuple[float, str, str]]:
    actions = [decode(Action, r.value) for r in records(outcomes) if r.topic == "actions.v1" and r.value]
    return [(a.time, a.node, a.verdict) for a in actions if a.effect == "limits"]


def broken(n: int) -> Log:
    """A log of calls, one a second, by a sender whose clock is an hour ahead."""
    log = Log()
    for i in range(n):
        log.add(event(i, START + i + AHEAD, cost=3 * USD), now=START + i)
    return log


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_it_is_told_of_once_a_month_from_its_floor_on_at_the_record_that_reaches_it(size: int) -> None:
    log = broken(10)
    log.tick(FEBRUARY - 1)
    log.tick(FEBRUARY)
    _, outcomes = play(log.every(size))
    assert tiers(outcomes) == [(START + 3, "a", "unplaced", "open"), (FEBRUARY, "a", "unplaced", "resolve")]
    assert limits(outcomes) == []


def test_the_finding_says_how_much_and_why() -> None:
    _, outcomes = play(broken(4).cuts())
    (found,) = [decode(Finding, r.value) for r in records(outcomes) if r.topic == "findings.v1" and r.value]
    assert found.severity == "critical"
    assert found.evidence["notify"]
    assert "$12.00 came with times too old or too far ahead to count" in found.reason


def test_a_node_inside_a_team_is_told_of_only_if_it_names_the_tier() -> None:
    keys = {"team": {}, "key": {}}
    _, quiet = play(broken(5).cuts(), engine(policy(defaults=keys)))
    _, named = play(broken(5).cuts(), engine(policy(defaults=keys | {"key": {"tiers": ["unplaced"]}})))
    assert {node for _, node, _, _ in tiers(quiet)} == {"a"}
    assert {node for _, node, _, _ in tiers(named)} == {"a", "key-1"}


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_hard_cap_counts_it_where_the_policy_says_so(size: int) -> None:
    log = broken(40)
    _, counting = play(log.every(size), engine(COUNTING))
    _, apart = play(log.every(size))
    assert limits(counting) == [(START + 33, "a", "block")]
    assert limits(apart) == []


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_a_cap_that_has_come_nearer_is_passed_by_money_on_time(size: int) -> None:
    log = broken(20)
    for i in range(20, 60):
        log.add(event(i, START + i, cost=2 * USD))
    _, outcomes = play(log.every(size), engine(COUNTING))
    assert [(when, state) for when, _, tier, state in tiers(outcomes) if tier == "hard-cap"] == [(START + 39, "open")]
    assert [(when, state) for when, _, tier, state in tiers(outcomes) if tier == "soft"] == [(START + 54, "open")]


@pytest.mark.parametrize("size", [1, 1_000])
def test_money_on_time_and_apart_in_one_batch_pass_a_cap_at_the_same_record_as_apart_from_each_other(size: int) -> None:
    log = Log()
    for i in range(60):
        ahead = AHEAD if i % 2 else 0.0
        log.add(event(i, START + i + ahead, cost=2 * USD), now=START + i)
    _, outcomes = play(log.every(size), engine(COUNTING))
    assert [when for when, _, tier, _ in tiers(outcomes) if tier == "hard-cap"] == [START + 49]


def test_a_finding_of_a_cap_quotes_all_that_was_held_against_it() -> None:
    _, outcomes = play(broken(40).cuts(), engine(COUNTING))
    found = [decode(Finding, r.value) for r in records(outcomes) if r.topic == "findings.v1" and r.value]
    cap = next(f for f in found if f.tier == "hard-cap")
    assert (cap.evidence["amount_nano"], cap.evidence["threshold_nano"]) == (102 * USD, 100 * USD)


def test_a_correction_of_money_apart_takes_it_off_again_and_lifts_the_block() -> None:
    log = broken(40)
    for i in range(40):
        old = event(i, START + i + AHEAD, cost=3 * USD)
        log.add(replace(old, request_id=f"c{i}", cost=USD, kind="correction", replaces=old), now=START + 60 + i)
    _, outcomes = play(log.cuts(), engine(COUNTING))
    assert [verdict for _, _, verdict in limits(outcomes)] == ["block", "allow"]
    assert [state for _, _, tier, state in tiers(outcomes) if tier == "unplaced"] == ["open"], "40 USD are apart still"


@pytest.mark.parametrize("crash", range(1, 40, 6))
def test_a_crash_anywhere_changes_nothing(crash: int) -> None:
    of, log = engine(COUNTING), broken(40)
    whole, told = play(log.every(1), of)
    state = of.new_state(0, 1)
    cuts = list(log.every(1))
    commit = max(crash - 5, 0)
    before = [of.step(state, cut) for cut in cuts[:commit]]
    state.mark()
    before += [of.step(state, cut) for cut in cuts[commit:crash]]
    told_last = of.flush(state)
    again = of.new_state(0, 1)
    restore(again, snapshot(state), commit)
    after = [of.step(again, cut) for cut in cuts[commit:]]
    assert {r.value for r in records([*before, *after]) if r.topic in ("findings.v1", "actions.v1")} == {
        r.value for r in records(told) if r.topic in ("findings.v1", "actions.v1")
    }
    assert again.heads[0].apart == whole.heads[0].apart
    assert Merged([*records(before), *told_last, *records(after)]) == Merged(records(told))


def test_money_apart_is_stored_though_nothing_else_of_its_team_has_changed() -> None:
    """Rows are stored after each record, as a busy worker does: a head that was not dirty would keep its old one."""
    of, log = engine(COUNTING), broken(40)
    whole, _ = play(log.every(1), of)
    state, stored = of.new_state(0, 1), {}
    for cut in log.every(1):
        of.step(state, cut)
        of.flush(state)
        stored |= snapshot(state)
    state.mark()
    again = of.new_state(0, 1)
    restore(again, stored | snapshot(state), len(log.records))
    assert again.heads[0].apart == whole.heads[0].apart
    assert {node: tiers.apart for node, tiers in again.heads[0].tiers.items()} == {
        node: tiers.apart for node, tiers in whole.heads[0].tiers.items()
    }


def snapshot(state: PartitionState) -> dict[str, bytes]:
    units = [copy_team(state, team) for team in dirty_teams(state)]
    rows = [row for unit in units for row in (*unit.heads, *unit.series)]
    return {row.key: row.value for row in (*rows, *copy_blocks(state), copy_partition(state))}


def test_the_organization_above_is_told_of_it_and_its_cap_counts_it() -> None:
    document = policy(
        nodes=[{"id": "acme", "level": "organization", "monthly_budget_usd": 50}],
        defaults={"team": {}},
        caps_count_unplaced=True,
    )
    at, of = Deployment(parents_engine(document)), engine(document)
    log = broken(30)
    _, outcomes = play(log.every(4), of)
    for record in records(outcomes):
        if record.topic == "rollups.v1":
            at.put(internal("rollup", record.at, record.key or b"", record.value or b""))
    found = [decode(Finding, out.value or b"") for out in at.records("findings.v1")]
    assert {(f.node, f.tier, f.state) for f in found} == {("acme", "unplaced", "open"), ("acme", "hard-cap", "open")}
    acme = next(iter(at.states.values())).parents["acme"]
    assert sum(acme.totals.book("UTC/1").apart.values()) == acme.tiers.apart == 90 * USD


def test_what_came_before_a_team_moved_stays_with_the_parent_it_had() -> None:
    nodes = [{"id": "acme", "level": "organization"}]
    nodes += [{"id": group, "level": "billing_group", "parent": "acme"} for group in ("g1", "g2")]
    before, after = (policy(nodes=[*nodes, {"id": "a", "level": "team", "parent": group}]) for group in ("g1", "g2"))
    log = broken(20)
    log.tick(START + 30)
    of = engine(versions=versions((0.0, before), (START + 10, after)))
    _, outcomes = play(log.every(3), of)
    told = Merged(records(outcomes)).amounts("unplaced")
    assert {where[0]: amount for where, amount in told.items()} == {"g1": 30 * USD, "g2": 30 * USD}


def test_a_month_begins_with_nothing_apart() -> None:
    log = broken(3)
    log.tick(FEBRUARY)
    for i in range(3, 5):
        log.add(event(i, FEBRUARY + i + AHEAD, cost=3 * USD), now=FEBRUARY + i)
    state, outcomes = play(log.cuts())
    assert tiers(outcomes) == []
    assert state.heads[0].tiers["a"].apart == 6 * USD
