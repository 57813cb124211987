"""The burn view against a recount of the events."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginelog import START, Log, engine, event, play, policy
from spendbrake.schemas.money import MAX_EVENT
from spendbrake.streams.engine.rules import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.workers.view import team_view, teams_view

DAY = 86_400.0


def view(state: PartitionState, team: str = "a") -> dict:
    assert isinstance(state.numbered_by, Rules)
    return team_view(state, state.numbered_by, state.teams.index[team])


def amounts(rows: list[dict], field: str = "month_to_date") -> dict[str, int]:
    return {row["name"]: row[field]["nano_usd"] for row in rows}


spends = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["key-1", "key-2"]),
        st.sampled_from(["gpt-4o", "claude-sonnet-4-5"]),
        st.integers(0, MAX_EVENT),
        st.floats(0, 4 * 3600),
    ),
    min_size=1,
    max_size=30,
)


@given(spends)
def test_every_amount_is_the_exact_sum_of_its_events(spends) -> None:
    log = Log()
    spends = sorted(spends, key=lambda spend: spend[-1])
    for i, (team, key, model, cost, after) in enumerate(spends):
        log.add(event(i, START + after, team=team, api_key_id=key, model=model, cost=cost))
    state, _ = play(log.every(7))
    now_minute = (START + spends[-1][-1]) // 60
    for team in {spend[0] for spend in spends}:
        mine = [spend for spend in spends if spend[0] == team]
        shown = view(state, team)
        total = sum(spend[3] for spend in mine)
        assert shown["month_to_date"]["nano_usd"] == shown["today"]["nano_usd"] == total
        assert Decimal(shown["month_to_date"]["usd"]) == Decimal(total) / 10**9
        recent = [(spend[3], now_minute - (START + spend[4]) // 60) for spend in mine]
        for name, minutes in (("last_hour", 60), ("last_15_min", 15)):
            assert shown[name]["nano_usd"] == sum(cost for cost, ago in recent if ago < minutes)
        assert shown["rate_per_hour"]["nano_usd"] == 12 * sum(cost for cost, ago in recent if ago < 5)
        for field, at in (("keys", 1), ("models", 2)):
            spent, calls = Counter(), Counter()
            for spend in mine:
                spent[spend[at]] += spend[3]
                calls[spend[at]] += 1
            assert amounts(shown[field]) == amounts(shown[field], "total") == dict(spent)
            assert {row["name"]: row["calls"] for row in shown[field]} == dict(calls)
        line = next(line for line in teams_view(state, state.numbered_by) if line["team"] == team)
        assert {name: line[name] for name in ("month_to_date", "today", "rate_per_hour")} == {
            name: shown[name] for name in ("month_to_date", "today", "rate_per_hour")
        }


@pytest.mark.parametrize(("timezone", "mean"), [("UTC", 20), ("Pacific/Auckland", 30)])
def test_the_daily_mean_is_over_the_days_of_the_teams_own_calendar(timezone: str, mean: int) -> None:
    log = Log()
    log.add(event(1, START + 12 * 3_600, cost=60))  # in Auckland it is the next day by then
    log.tick(START + 3 * DAY + 3_600)
    nodes = [{"id": "acme", "level": "organization", "calendar": {"timezone": timezone}}]
    state, _ = play(log.every(9), engine(policy(nodes=nodes)))
    assert isinstance(state.numbered_by, Rules)
    (line,) = teams_view(state, state.numbered_by)
    assert line["daily_mean"]["nano_usd"] == mean


@pytest.fixture
def blocked() -> PartitionState:
    """A team that has spent $120 of $100, $30 of it in the last hour."""
    log = Log()
    for i, at in enumerate([0, 60, 2 * DAY, 2 * DAY + 60]):
        log.add(event(i, START + at, cost=30 * 10**9, project="chat", environment="dev"))
    return play(log.cuts())[0]


def test_a_team_past_its_cap_shows_the_tier_and_the_block(blocked: PartitionState) -> None:
    shown = view(blocked)
    team = shown["nodes"][0]
    assert (team["node"], team["level"], team["budget_percent"], team["allocation_percent"]) == ("a", "team", 120, 120)
    stands = {tier["tier"]: tier["stands"] for tier in team["tiers"]}
    assert stands["hard-cap"]
    cap = next(tier for tier in team["tiers"] if tier["tier"] == "hard-cap")
    assert cap["threshold"] == {"usd": "100.000000000", "nano_usd": 100 * 10**9}
    (limit,) = shown["limits"]
    assert (limit["verdict"], limit["node"], limit["scope"], limit["mode"]) == ("block", "a", "*", "enforce")
    assert limit["expires_at"] > blocked.now


def test_the_view_says_what_it_is_true_of(blocked: PartitionState) -> None:
    shown = view(blocked)
    assert shown["as_of"] == {"clock": START + 2 * DAY + 60, "partition": 0, "epoch": 1, "offset": 3}
    assert shown["period"]["id"] == "2026-01"
    assert shown["today"]["nano_usd"] == shown["last_hour"]["nano_usd"] == 60 * 10**9
    assert amounts(shown["projects"]) == {"chat": 120 * 10**9}
    assert amounts(shown["environments"]) == {"dev": 120 * 10**9}


def test_the_forecast_is_month_to_date_and_the_mean_day_for_each_day_left() -> None:
    log = Log()
    for i in range(4):
        log.add(event(i, START + i * DAY, cost=10**9))
    shown = view(play(log.cuts())[0])
    # $1 a day from 5 January on is $27: of the 8th nothing more is to come, 23 days are.
    assert shown["forecast"]["nano_usd"] == (4 + 23) * 10**9


def test_an_export_of_weeks_that_begins_with_the_latest_day_makes_no_young_team_of_an_old_one() -> None:
    log = Log()
    for i in range(1, 15):
        log.add(event(i, START + (20 - i) * DAY, cost=10 * 10**9), now=START + 20 * DAY)
    state = play(log.cuts())[0]
    assert view(state)["forecast"]["nano_usd"] == (14 * 10 + 7 * 10) * 10**9, "25 to 31 January are left"
    (line,) = teams_view(state, engine().book.at(state.now))
    assert line["daily_mean"]["nano_usd"] == 10 * 10**9


def test_quiet_days_of_a_team_that_is_older_count_in_its_forecast() -> None:
    log = Log()
    for day in (0, 1, 17):
        log.add(event(day, START + day * DAY, cost=14 * 10**9))
    log.tick(START + 18 * DAY)
    shown = view(play(log.cuts())[0])
    assert shown["forecast"]["nano_usd"] == (3 * 14 + 9) * 10**9, "the last 14 days have one of $14; 9 are left"


def test_money_without_a_place_in_time_is_shown_apart() -> None:
    log = Log()
    log.add(event(1, START))
    log.add(event(2, START + 3600, cost=7), now=START + 1)
    shown = view(play(log.cuts())[0])
    assert shown["unplaced"] == {"usd": "0.000000007", "nano_usd": 7, "events": 1}
    assert shown["month_to_date"]["nano_usd"] == 10_000_000
    assert [(node["node"], node["unplaced"]["nano_usd"]) for node in shown["nodes"]] == [("a", 7)]


def test_a_tier_that_is_not_armed_has_no_threshold() -> None:
    log = Log()
    log.add(event(1, START))
    tiers = {t["tier"]: t for t in view(play(log.cuts(), engine(policy()))[0])["nodes"][0]["tiers"]}
    unarmed = [t for t in tiers.values() if t["basis"] in ("daily_forecast", "month_over_month")]
    assert unarmed
    assert all(t["threshold"] is None and not t["stands"] for t in unarmed)


def test_only_nodes_with_something_to_watch_are_shown_below_the_team() -> None:
    log = Log()
    log.add(event(1, START))
    log.add(event(2, START, api_key_id="key-2"))
    key = {"id": "key-2", "level": "key", "parent": "a", "monthly_budget_usd": 1}
    nodes = [{"id": "acme", "level": "organization"}, {"id": "a", "level": "team", "parent": "acme"}, key]
    rules = policy(nodes=nodes, defaults={"key": {}})
    shown = view(play(log.cuts(), engine(rules))[0])["nodes"]
    assert [(node["level"], node["node"], node["allocation_percent"]) for node in shown] == [
        ("team", "a", None),
        ("key", "key-2", 1.0),
    ]
