"""Limits that change, end or are extreme: versions, rates, ended allocations, names that clash, amounts past int64."""

from typing import Any

import pytest

from enginelog import START, Log, engine, event, play, policy, versions
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from unit.engine.test_tiering import USD, at, limits, run


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_month_leaves_what_its_own_limits_had_left_though_a_rate_changes_as_the_next_begins(size: int) -> None:
    rates = [{"usd": "1"}, {"usd": "2", "valid_from": "2026-02-01T00:00:00Z"}]
    nodes = [
        {"id": "acme", "level": "organization", "currency": {"name": "credits", "rates": rates}},
        {"id": "a", "level": "team", "parent": "acme", "monthly_allocation": 100, "rollover_percent": 50},
    ]
    log = Log()
    log.add(event(0, at("2026-01-20T12:00:00"), cost=95 * USD))
    log.tick(at("2026-02-01T00:00:00"))
    state, _ = run(engine(policy(nodes=nodes, defaults={})), log, size)
    tiers_of_a = state.heads[0].tiers["a"]
    assert (tiers_of_a.allowance.rollover, tiers_of_a.allocation) == (5 * USD, 205 * USD)


def test_nothing_that_was_carried_over_may_be_spent_once_the_allocation_has_ended() -> None:
    rolls = {"monthly_budget_usd": 100, "rollover_percent": 10, "expires_at": "2026-02-10T00:00:00Z"}
    nodes = [{"id": "acme", "level": "organization"}, {"id": "a", "level": "team", **rolls}]
    log = Log()
    log.add(event(0, at("2026-01-20T12:00:00"), cost=USD))
    log.add(event(1, at("2026-02-05T12:00:00"), cost=USD))
    log.tick(at("2026-02-10T00:00:00"))
    _, sent = run(engine(policy(nodes=nodes)), log)
    assert limits(sent) == [(at("2026-02-10T00:00:00"), "a", "block")]


def test_a_key_that_is_called_as_its_team_is_held_against_its_own_cap() -> None:
    log = Log()
    for i in range(5):
        log.add(event(i, START + i, api_key_id="a", cost=USD))
    defaults = {"team": {"monthly_budget_usd": 100}, "key": {"monthly_budget_usd": 3}}
    _, sent = run(engine(policy(defaults=defaults)), log)
    assert limits(sent) == [(START + 2, "key:a/a", "block")]


def test_a_threshold_past_all_money_is_never_reached_and_stops_no_worker() -> None:
    tier = {"name": "hard-cap", "basis": "monthly_allocation", "at": 100, "severity": "info"}
    log = Log()
    log.add(event(0, START, cost=USD))
    _, sent = run(engine(policy(tiers=[tier], defaults={"team": {"monthly_budget_usd": 10**9}})), log)
    assert limits(sent) == []


def test_a_team_that_a_version_moves_may_be_heard_of_first_as_the_version_begins() -> None:
    tree = [{"id": "acme", "level": "organization"}, {"id": "b", "level": "billing_group", "parent": "acme"}]
    team = {"id": "a", "level": "team", "parent": "acme", "monthly_budget_usd": 5}
    there = policy(nodes=[*tree, team])
    here = policy(nodes=[*tree, {**team, "parent": "b", "calendar": {"timezone": "Asia/Tokyo"}}])
    log = Log()
    log.add(event(0, START, team="other", cost=USD))
    log.add(event(1, START + 60, cost=6 * USD))
    state, sent = run(engine(versions=versions((0.0, there), (START + 60, here))), log)
    assert limits(sent) == [(START + 60, "a", "block")]
    assert state.heads[state.teams.index["a"]].shares == {}, "no parent has heard of it before"


def test_a_team_that_a_version_moves_below_other_calendars_leaves_its_share_behind() -> None:
    tree = [
        {"id": "acme", "level": "organization"},
        {"id": "b", "level": "billing_group", "parent": "acme"},
        {"id": "c", "level": "billing_group", "parent": "acme", "calendar": {"timezone": "Asia/Tokyo"}},
    ]
    team = {"id": "a", "level": "team", "calendar": {"timezone": "UTC"}}
    there, here = (policy(nodes=[*tree, {**team, "parent": parent}]) for parent in ("b", "c"))
    log = Log()
    log.add(event(0, START, cost=USD))
    log.add(event(1, START + 60, cost=6 * USD))
    state, _ = run(engine(versions=versions((0.0, there), (START + 60, here))), log)
    (share,) = state.heads[0].shares.items()
    assert share[0] == "b"
    assert {key: sum(book.months.values()) for key, book in share[1].books.items()} == {"UTC/1": USD}


def months(starts_on: int, **more: Any) -> dict[str, Any]:
    node = {"id": "a", "level": "team", "parent": "acme", "monthly_budget_usd": 100, **more}
    return policy(
        nodes=[{"id": "acme", "level": "organization"}, node],
        calendar={"timezone": "UTC", "month_starts_on": starts_on},
    )


def test_a_calendar_that_begins_its_months_earlier_counts_no_money_against_two_of_them() -> None:
    log = Log()
    for i, day in enumerate(("2026-10-20", "2026-11-05")):
        log.add(event(i, at(day), cost=(40, 30)[i] * USD))
    log.tick(at("2026-11-10"))
    later = versions((0.0, months(15, rollover_percent=50)), (at("2026-11-10"), months(1, rollover_percent=50)))
    state, _ = play(log.cuts(), engine(versions=later))
    tiers = state.heads[0].tiers["a"]
    assert (tiers.period, tiers.allowance.rollover) == ("2026-11", 50 * USD), (
        "October has left 60, half of 100 goes over"
    )


def test_a_month_that_a_calendar_comes_to_again_repeats_no_id() -> None:
    log = Log()
    for i, day in enumerate(("2026-10-20", "2026-11-05", "2026-11-10", "2026-11-20")):
        log.add(event(i, at(day), cost=100 * USD))
    file = months(1), months(15)
    _, outcomes = play(log.cuts(), engine(versions=versions((0.0, file[0]), (at("2026-11-10"), file[1]))))
    found = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    caps = [(each.period, each.turn, each.state) for each in found if each.tier == "hard-cap"]
    assert len({each.id for each in found}) == len(found), caps
    assert [each for each in caps if each[2] == "open"] == [
        ("2026-10", 1, "open"), ("2026-11", 1, "open"), ("2026-10", 3, "open"), ("2026-11", 3, "open"),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_team_that_is_given_an_id_begins_anew_and_its_former_name_blocks_nobody(size: int) -> None:
    defaults = {"team": {"monthly_budget_usd": 10}, "project": {"monthly_budget_usd": 7}}
    node = {"id": "pay-2", "level": "team", "parent": "acme", "monthly_budget_usd": 10, "match": ["pay"]}
    listed = policy(nodes=[{"id": "acme", "level": "organization"}, node], defaults=defaults)
    log = Log()
    for i in range(12):
        log.add(event(i, START + i, team="pay", project="web", cost=USD))
    for i in range(12, 23):
        log.add(event(i, START + 3_600 + i, team="pay", project="web", cost=USD))
    _, sent = run(engine(versions=versions((0.0, policy(defaults=defaults)), (START + 3_600, listed))), log, size)
    assert [(round(now - START), node, verdict) for now, node, verdict in limits(sent)] == [
        (6, "pay/web", "block"), (9, "pay", "block"), (3_612, "pay", "allow"), (3_612, "pay/web", "allow"),
        (3_618, "pay-2/web", "block"), (3_621, "pay-2", "block"),
    ]  # fmt: skip
