"""New series of a team that is new itself: nothing is news to it but what nobody approved."""

import pytest

from enginelog import START, Log, engine, event, play, policy
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode

DAY_S = 86_400.0
DOLLARS = 1_000_000_000
DETECTION = {"enabled": True, "floor_usd_h": "0.5"}
NODES = [{"id": "acme", "level": "organization"}, {"id": "a", "level": "team", "approved_models": ["gpt-*"]}]


def news(model: str, after_s: float, **document: object) -> tuple[bool, list[str]]:
    """Whether detectors were shown a model that costs $40, so long after the team's first call; what they told."""
    log = Log()
    log.add(event(0, START), START)
    for i in range(1, 5):
        at = START + after_s + i
        log.add(event(i, at, model=model, cost=10 * DOLLARS), at)
    state, outcomes = play(log.every(2), engine(policy(detection=DETECTION, **document)))
    sent = (record for outcome in outcomes for record in outcome.records if record.topic == "findings.v1")
    told = [decode(Finding, record.value) for record in sent]
    return state.heads[0].panel is not None, [one.reason for one in told if one.family == "new"]


def test_in_a_teams_first_day_no_detector_is_asked_of_what_is_new() -> None:
    assert news("claude-opus-4-1", after_s=2.0) == (False, [])


@pytest.mark.parametrize("after_s", [2.0, 2 * DAY_S])
def test_what_nobody_approved_is_told_however_new_the_team_is(after_s: float) -> None:
    shown, told = news("claude-opus-4-1", after_s, nodes=NODES)
    assert shown
    assert told[0].startswith("Model claude-opus-4-1 is not approved: ")


def test_what_is_new_to_a_team_of_two_days_is_news() -> None:
    _, told = news("claude-opus-4-1", after_s=2 * DAY_S)
    assert told[0].startswith("New model claude-opus-4-1: ")
