"""Feedback in a team's log: taken once, the last word holds, people are told; it silences no hard fact and no cap."""

from typing import Any

import pytest

from enginelog import START, Log, event, play, policy
from enginelog import engine as engine_of
from spendbrake.schemas.command import Command
from spendbrake.schemas.finding import COMMAND, FEEDBACK, Finding
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_team, restore
from unit.engine_limits.test_orders import actions, dead, findings, put, spent

USD = 10**9
POLICIES = [
    {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]},
    {"name": "any", "when": {"detectors": ["*"]}, "rungs": [{"name": "b", "limit": {"verdict": "queue"}}]},
]  # fmt: skip
FILE = policy(
    nodes=[
        {"id": "acme", "level": "organization"},
        {"id": "a", "level": "team", "monthly_budget_usd": 10, "approved_models": ["gpt-*"]},
    ],
    defaults={"team": {"monthly_budget_usd": 10}, "key": {}},
    policies=POLICIES,
    detection={"enabled": True},
)


def word(number: int, opinion: str = "false_alarm", **more: Any) -> Command:
    base: dict[str, Any] = dict(
        node="a", home="a", by="fay", role="operator", issued_at=START, finding=f"f-{number}", incident=f"i-{number}",
        detector="phase_knn",
    )  # fmt: skip
    return Command(id=f"feedback-{number}-{opinion}", kind="feedback", opinion=opinion, **(base | more))


def votes(state: PartitionState) -> dict[str, list[int]]:
    return state.heads[0].votes.counts


def refused_model(log: Log, n: int, at: float) -> None:
    for i in range(n):
        log.add(event(5_000 + i, at + i, cost=USD // 100, model="claude-opus-4-1"))


def detected(outcomes: list[Outcome]) -> list[Finding]:
    return [each for each in findings(outcomes, "new_model") if each.state != "resolve"]


def test_feedback_is_taken_once_and_told() -> None:
    log = spent(1)
    for _ in range(3):
        put(log, word(1), START + 5)
    put(log, word(2, "real", reason="the nightly job"), START + 6)
    state, outcomes = play(log.cuts(), engine_of(FILE))
    assert votes(state) == {"phase_knn": [1, 1]}
    told = findings(outcomes, COMMAND)
    assert [(each.family, each.incident, each.state, each.evidence["opinion"]) for each in told] == [
        (FEEDBACK, "i-1", "resolve", "false_alarm"), (FEEDBACK, "i-2", "resolve", "real"),
    ]  # fmt: skip
    assert told[1].reason == "The alert of phase_knn at a is real, says fay (operator): the nightly job"


def test_the_last_word_on_an_incident_holds() -> None:
    log = spent(1)
    for number, opinion in enumerate(("false_alarm", "real", "false_alarm", "real")):
        put(log, word(number, opinion, incident="i"), START + 5 + number)
    state, _ = play(log.cuts(), engine_of(FILE))
    assert votes(state) == {"phase_knn": [1, 0]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"detector": "budget"}, "unknown_detector"),
        ({"detector": "burn_rate"}, "unknown_detector"),
        ({"detector": "command"}, "unknown_detector"),
        ({"detector": ""}, "unknown_detector"),
        ({"opinion": "maybe"}, "bad_command"),
        ({"opinion": ""}, "bad_command"),
    ],
)
def test_nobody_has_an_opinion_on_arithmetic(change: dict[str, str], reason: str) -> None:
    log = spent(1)
    put(log, word(1, **change), START + 5)
    state, outcomes = play(log.cuts(), engine_of(FILE))
    assert dead(outcomes) == [f"command: {reason}"]
    assert (votes(state), findings(outcomes, COMMAND)) == ({}, [])


def test_no_policy_answers_feedback_even_one_that_answers_commands() -> None:
    named = {"name": "desk", "when": {"detectors": [COMMAND]}, "rungs": [{"name": "b", "limit": {"verdict": "block"}}]}
    log = spent(1)
    put(log, word(1), START + 5)
    _, outcomes = play(log.cuts(), engine_of(FILE | {"policies": [named]}))
    assert actions(outcomes) == []
    assert len(findings(outcomes, COMMAND)) == 1


def test_a_thousand_false_alarms_silence_neither_the_cap_nor_what_nobody_approved() -> None:
    told, done = [], []
    for n in (0, 1_000):
        log = spent(1)
        for i in range(n):
            detector = ("new_model", "retry_loop", "burn_record", "phase_knn")[i % 4]
            put(log, word(i, detector=detector), START + 5)
            put(log, word(i, detector=detector, by="eve"), START + 5)
        refused_model(log, 8, START + 60)
        for i in range(10):
            log.add(event(9_000 + i, START + 120 + i, cost=USD))
        log.tick(START + 200)
        state, outcomes = play(log.every(97), engine_of(FILE))
        assert sum(map(sum, votes(state).values())) == n
        told.append([(each.time, each.severity, each.reason, each.evidence) for each in detected(outcomes)])
        done.append(actions(outcomes))
    assert told[0]
    assert told[0] == told[1]
    assert ("a", "block") in done[0]
    assert done[0] == done[1]


def test_feedback_is_stored_with_the_team_and_a_restart_goes_on_with_it() -> None:
    log = spent(1)
    put(log, word(1), START + 5)
    put(log, word(2, "real"), START + 6)
    of = engine_of(FILE)
    state, _ = play(log.cuts(), of)
    rows = {row.key: row.value for rows in (copy_team(state, 0).heads, copy_team(state, 0).series) for row in rows}
    again = of.new_state(0, 1)
    restore(again, rows, None)
    assert again.heads[0].votes.to_state() == state.heads[0].votes.to_state()
    assert votes(again) == {"phase_knn": [1, 1]}


def test_incidents_of_a_log_that_counts_offsets_anew_are_others() -> None:
    log, of = Log(), engine_of(FILE)
    refused_model(log, 200, START)
    incidents = []
    for epoch in (1, 2):
        state = of.new_state(0, epoch)
        incidents.append({each.incident for each in detected([of.step(state, cut) for cut in log.cuts()])})
    assert all(incidents)
    assert not incidents[0] & incidents[1]
