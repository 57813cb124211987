"""What people say moves a soft detector's gate: a little, for a while, within bounds; hard facts not at all."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings import DAY_S, START, bucket, context, new_series, ordinary, session
from spendbrake.detectors.base import Evidence, Usual
from spendbrake.detectors.catalog import detectors
from spendbrake.detectors.memory.votes import KEPT, FeedbackParams, Vote, Votes
from spendbrake.detectors.panel import Panel, TeamPanel
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import Reading
from unit.detectors import test_calls as calls

PARAMS = FeedbackParams()
SOFT = sorted(name for name, build in detectors().items() if not build.hard)
HARD = sorted(set(detectors()) - set(SOFT))
SAID = st.lists(st.tuples(st.sampled_from(("phase_knn", "local_z")), st.booleans(), st.floats(0, 90 * DAY_S)))


def votes(n: int, detector: str, *, real: bool = False, at: float = START) -> Votes:
    said = Votes()
    for i in range(n):
        said.take(f"{detector}-{i}", Vote(detector, real, at, "fay"))
    return said


def everywhere(n: int, at: float = START) -> Votes:
    """So many false alarms of each detector there is."""
    said = Votes()
    for i in range(n):
        for name in detectors():
            said.take(f"{name}-{i}", Vote(name, False, at, "fay"))
    return said


def built(name: str) -> Any:
    return detectors()[name](detectors()[name].parameters())


def test_facts_that_need_no_statistics_are_hard() -> None:
    assert {"retry_loop", "queue_replay", "runaway_session", "dev_on_prod", "tokens_without_cost"} <= set(HARD)
    assert {"burn_record", "phase_knn", "gaussian_tail", "regular_calls", "cache_misses"} <= set(SOFT)


@given(SAID, st.floats(0, 200 * DAY_S), st.floats(0, 20))
def test_whatever_is_said_the_gate_moves_within_bounds_and_never_below_itself(
    said: list[tuple[str, bool, float]], now: float, alarms: float
) -> None:
    taken = Votes()
    for i, (detector, real, at) in enumerate(said):
        taken.take(str(i), Vote(detector, real, at, "fay"))
    heard = taken.heard(built("phase_knn"), Usual(1.0, alarms), now, PARAMS)
    assert max(alarms - PARAMS.most, 0.0) <= heard.alarms <= alarms + PARAMS.most
    assert (heard.usd_h, heard.age_s) == (1.0, 0.0)


@pytest.mark.parametrize("name", HARD)
def test_no_feedback_moves_what_is_asked_of_a_hard_fact(name: str) -> None:
    usual = Usual(1.0, 2.0, 7 * DAY_S)
    assert everywhere(1_000).heard(built(name), usual, START, PARAMS) is usual


def test_a_false_alarm_counts_as_one_more_recent_alarm_a_real_one_as_one_less_and_both_fade() -> None:
    knn = built("phase_knn")
    for real, near, later in ((False, 3.0, 2.0), (True, 1.0, 2.0)):
        said = votes(1, "phase_knn", real=real)
        assert said.heard(knn, Usual(1.0, 2.0), START, PARAMS).alarms == near
        assert said.heard(knn, Usual(1.0, 2.0), START + 200 * DAY_S, PARAMS).alarms == later
    assert votes(1, "local_z").heard(knn, Usual(1.0, 2.0), START, PARAMS).alarms == 2.0


def test_a_word_is_not_heard_twice_and_old_incidents_are_forgotten_but_counted() -> None:
    said = votes(3 * KEPT, "phase_knn")
    for _ in range(5):
        said.take("phase_knn-191", Vote("phase_knn", False, START, "eve"))
    assert said.counts == {"phase_knn": [0, 3 * KEPT]}
    assert said.of("phase_knn-0") is None
    assert len(said.to_state()["latest"]) == KEPT


@given(SAID)
def test_kept_feedback_goes_on_bit_by_bit(said: list[tuple[str, bool, float]]) -> None:
    taken = Votes()
    for i, (detector, real, at) in enumerate(said):
        taken.take(str(i % 9), Vote(detector, real, at, "fay"))
    again = Votes.from_state(taken.to_state())
    assert again.to_state() == taken.to_state()
    assert again.sway("phase_knn", 50 * DAY_S, PARAMS) == taken.sway("phase_knn", 50 * DAY_S, PARAMS)


def test_feedback_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        Votes.from_state({"v": 2})


def told(team: TeamPanel, readings: Iterable[Reading]) -> list[Finding]:
    return [finding for one in readings for finding in team.read(one, context)]


def with_votes(team: TeamPanel, said: Votes) -> TeamPanel:
    return team._panel.load(team.team, team.dump(), said)


def test_hard_facts_open_at_the_same_reading_in_the_same_words() -> None:
    settled, now = calls.settled(), START + 10.0 * calls.LATER
    loop: list[Reading] = list(calls.every(60, 20.0, calls.LATER, cost=NANO // 5, session=99))
    later = [new_series(now=now + 9_000.0, approved=False, cost=NANO // 50), session(now=now + 20_000.0)]
    opened = []
    for said in (Votes(), everywhere(1_000, now)):
        findings = told(with_votes(settled, said), [*loop, *later])
        opened.append([(f.time, f.detector, f.severity, f.reason, f.incident) for f in findings if f.state == "open"])
    assert [detector for _, detector, *_ in opened[0]] == ["retry_loop", "new_model", "runaway_session"]
    assert opened[0] == opened[1]


def test_soft_findings_take_more_and_real_ones_are_still_told() -> None:
    gate, evidence = Panel(Detection()).gate, Evidence(excess=2 * NANO, text="", span_s=3_600.0)
    tail, usual = built("gaussian_tail"), Usual(2.0, 0.0, 7 * DAY_S)
    held = votes(1_000, "gaussian_tail").heard(tail, usual, START, PARAMS)
    assert gate.material(evidence, usual)
    assert not gate.material(evidence, held)
    assert gate.material(replace(evidence, excess=3 * NANO), held), "two and a half times the floor, and no more"
    score = gate.threshold(10.0)
    assert gate.unusual(score, 10.0, usual, under_way=False)
    assert not gate.unusual(score, 10.0, held, under_way=False)
    assert gate.unusual(score + 3.0, 10.0, held, under_way=False)


def test_a_record_burn_is_told_later_after_false_alarms_and_told_all_the_same() -> None:
    def first(said: Votes) -> float:
        team = with_votes(calls.settled(), said)
        after = [bucket(calls.LATER + i, usd=0.15) for i in range(600)]
        return min(f.time for f in told(team, after) if f.detector == "burn_record" or f.family == "rate")

    now = START + 10.0 * calls.LATER
    quiet, often = first(Votes()), first(everywhere(1_000, now))
    assert quiet < often < quiet + 3_600.0


def test_later_news_of_an_incident_says_what_was_said_of_it() -> None:
    settled = Panel(Detection()).team("search")
    told(settled, ordinary(400, most_empty=1))
    now = START + 9 * DAY_S
    (opened,) = told(settled, [new_series(now=now, approved=False, cost=NANO)])
    assert "judged" not in opened.evidence
    settled._votes.take(opened.incident, Vote("new_model", False, now, "slack:UFAY"))
    (grown,) = told(settled, [new_series(now=now + 60.0, approved=False, cost=90 * NANO)])
    assert (grown.incident, grown.evidence["judged"]) == (opened.incident, "false_alarm")
    assert grown.evidence["judged_by"] == "slack:UFAY"
