"""The simulated company: the same from the same seed, in time order, with a runaway that can be told apart."""

from collections import Counter
from importlib.resources import files
from itertools import islice, pairwise

import pytest
import yaml

from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import decode_usage_json, encode_usage_json
from spendbrake.streams.budgets.tree import Tree
from spendbrake.streams.simulate.company import DAY_S, MODELS, MONDAY, Company


@pytest.fixture(scope="module")
def day() -> list[UsageEvent]:
    return list(Company().events())


def test_equal_fields_give_equal_events_and_another_seed_gives_others() -> None:
    def head(seed: int) -> list[UsageEvent]:
        return list(islice(Company(seed=seed, calls_per_day=2_000).events(), 300))

    assert head(1) == head(1)
    assert head(1) != head(2)


def test_events_come_in_time_order_with_ids_of_their_own(day: list[UsageEvent]) -> None:
    assert all(earlier.time <= later.time for earlier, later in pairwise(day))
    assert len({event.request_id for event in day}) == len(day)
    assert day[0].time >= MONDAY
    assert day[-1].time < MONDAY + DAY_S


def test_the_day_has_about_the_calls_that_were_asked_for(day: list[UsageEvent]) -> None:
    runaway = Company().runaway
    ordinary = sum(not runaway.owns(event) for event in day)
    assert 25_000 < ordinary < 35_000
    smaller = sum(1 for _ in Company(calls_per_day=3_000, runaway_at_h=None).events())
    assert 2_000 < smaller < 4_500


def test_every_event_is_one_the_wire_accepts(day: list[UsageEvent]) -> None:
    assert all(decode_usage_json(encode_usage_json(event)) == event for event in day[::50])


def test_token_counts_hold_together(day: list[UsageEvent]) -> None:
    assert all(event.cache_read_tokens <= event.input_tokens <= 1_000_000 for event in day)
    failed = [event for event in day if event.error_code]
    assert 0.004 < len(failed) / len(day) < 0.012
    assert all(event.input_tokens == event.output_tokens == 0 for event in failed)


def test_offices_sleep_and_batches_run_at_night(day: list[UsageEvent]) -> None:
    def share_by_night(team: str) -> float:
        hours = [event.time % DAY_S // 3_600 for event in day if event.team == team]
        return sum(hour < 6 for hour in hours) / len(hours)

    assert share_by_night("ide") < 0.05
    assert share_by_night("documents") > 0.5


def test_a_weekend_is_quiet_in_the_office() -> None:
    week = Counter(
        int((event.time - MONDAY) // DAY_S)
        for event in Company(days=7, calls_per_day=5_000, runaway_at_h=None).events()
        if event.team == "ide"
    )
    assert max(week[5], week[6]) < min(week[day] for day in range(5)) / 2


def test_the_runaway_is_one_session_of_one_key_from_its_hour_on(day: list[UsageEvent]) -> None:
    company = Company()
    runaway = company.runaway
    calls = [event for event in day if runaway.owns(event)]
    assert calls == list(runaway.events())
    assert calls[0].time == MONDAY + 14.5 * 3_600
    assert {(event.team, event.api_key_id, event.model) for event in calls} == {
        ("platform", "key-platform-dev-2", "claude-opus-4-5")
    }
    gaps = [later.time - earlier.time for earlier, later in pairwise(calls)]
    assert all(6 < gap < 10 for gap in gaps)
    assert 400 < len(calls) / ((MONDAY + DAY_S - calls[0].time) / 3_600) < 500


def test_what_the_runaway_has_cost_is_the_sum_of_its_calls_before() -> None:
    runaway = Company().runaway
    assert runaway.cost_until(runaway.started_at, lambda _: NANO) == 0
    counted = sum(event.time < runaway.started_at + 600 for event in runaway.events())
    assert runaway.cost_until(runaway.started_at + 600, lambda _: NANO) == counted * NANO > 0


def test_a_company_without_a_runaway_has_only_ordinary_calls() -> None:
    company = Company(calls_per_day=500, runaway_at_h=None)
    assert company.runaway is None
    assert not any("runaway" in (event.session_id or "") for event in company.events())


def test_the_policy_file_names_every_team_and_caps_the_runaways_key() -> None:
    text = files("spendbrake.streams.simulate").joinpath("company.yaml").read_text()
    file = PolicyFile.model_validate(yaml.safe_load(text))
    tree = Tree(file)
    assert [tree.resolve_team(team.name).id for team in Company().teams] == [team.name for team in Company().teams]
    runaway = Company().runaway
    key = tree.resolve_key(tree.resolve_team(runaway.team), runaway.key)
    assert key is not None
    assert (key.id, key.budgeted) == (runaway.key, True)


def test_every_model_has_a_provider() -> None:
    assert {model for team in Company().teams for model in team.models} <= set(MODELS)
