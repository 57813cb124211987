"""Burn rates: both windows must burn, by the clock of the log, once; what is over is resolved."""

from itertools import groupby
from random import Random
from typing import Any

import pytest

from enginelog import START, Log, event, play, policy, versions
from enginelog import engine as engine_of
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import BURN_RATE, Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome, OutRecord
from spendbrake.streams.engine.step import Engine
from unit.engine.test_restart import Disk, Worker

USD, HOUR = 10**9, 3_600.0
FAST = {"name": "fast", "long_s": 3_600, "short_s": 300, "times": "14.4", "severity": "critical"}
SLOW = {"name": "slow", "long_s": 259_200, "short_s": 21_600, "times": "1.5", "severity": "warning", "floor_usd": 5}
# A month of 744 h: 14.4 times the rate of $744 is $14.40 an hour.
FILE = policy(defaults={"team": {"monthly_budget_usd": 744}}, burn_rates=[FAST], policies=[])


def burn(log: Log, first: int, begin: float, end: float, usd_h: float) -> None:
    """Spend so much an hour, a call a minute."""
    for i, at in enumerate(range(round(begin), round(end), 60)):
        log.add(event(first + i, float(at), cost=round(usd_h * USD / 60)))


def findings(outcomes: list[Outcome]) -> list[Finding]:
    found = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    return [each for each in found if each.detector == BURN_RATE]


def states(outcomes: list[Outcome]) -> list[tuple[str, float]]:
    return [(each.state, (each.time - START) / 60) for each in findings(outcomes) if each.state != "update"]


def test_both_windows_must_burn() -> None:
    log = Log()
    burn(log, 0, START, START + 10 * 60, 60.0)
    burn(log, 100, START + 10 * 60, START + 120 * 60, 0.1)
    _, outcomes = play(log.cuts(), engine_of(FILE))
    assert states(outcomes) == [], "$10 in the hour is less than $14.40"
    burn(log, 300, START + 120 * 60, START + 150 * 60, 60.0)
    log.tick(START + 160 * 60)
    _, outcomes = play(log.cuts(), engine_of(FILE))
    assert states(outcomes) == [("open", 135.0), ("resolve", 160.0)]


def test_a_rate_is_told_in_words_and_exactly_at_its_threshold() -> None:
    log = Log()
    burn(log, 0, START, START + 59 * 60, 14.40)
    log.add(event(900, START + 59 * 60 + 1, cost=14_400_000_000 - 59 * 240_000_000))
    log.tick(START + HOUR)
    _, outcomes = play(log.cuts(), engine_of(FILE))
    (found,) = findings(outcomes)
    assert (found.state, found.time, found.severity) == ("open", START + HOUR, "critical")
    assert found.reason == (
        "a burns 14.4 times its budget of $744.00: $14.40 in 60 min, $1.20 in 5 min; the rest of $729.60 lasts 50.7 h."
    )
    log.records[-2:] = []
    log.add(event(900, START + 59 * 60 + 1, cost=14_400_000_000 - 59 * 240_000_000 - 1))
    log.tick(START + HOUR)
    _, outcomes = play(log.cuts(), engine_of(FILE))
    assert findings(outcomes) == []


def test_what_goes_on_is_confirmed_and_climbs_its_ladder_and_what_is_over_is_lifted() -> None:
    ladder = {
        "name": "burning",
        "when": {"detectors": [BURN_RATE]},
        "hold_s": 600,
        "rungs": [
            {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1}},
            {"name": "stop", "after_s": 600, "limit": {"verdict": "block"}},
        ],
    }
    log = Log()
    burn(log, 0, START, START + HOUR, 30.0)
    log.tick(START + 2 * HOUR)
    log.tick(START + 3 * HOUR)
    _, outcomes = play(log.cuts(), engine_of(FILE | {"policies": [ladder]}))
    made = [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]
    verdicts = [verdict for verdict, _ in groupby(each.verdict for each in made if each.effect == "limits")]
    assert verdicts == ["throttle", "block", "allow"]


def test_a_slow_burn_is_seen_over_days() -> None:
    log = Log()
    for hour in range(24 * 5):
        rate = 1.0 if hour < 48 else 1.8
        log.add(event(hour, START + hour * HOUR, cost=round(rate * USD)))
    _, outcomes = play(log.cuts(), engine_of(FILE | {"burn_rates": [SLOW]}))
    (opened,) = [each for each in findings(outcomes) if each.state == "open"]
    assert START + 72 * HOUR < opened.time < START + 120 * HOUR
    assert "burns 1.5 times its budget of $744.00" in opened.reason


WITHDRAWN = FILE | {"burn_rates": []}
STRICTER = FILE | {"burn_rates": [FAST | {"times": "1000"}]}


def changed(after: dict[str, Any]) -> tuple[Log, Engine]:
    """Sixty dollars an hour for 40 minutes, of which the last twenty under another policy."""
    log = Log()
    burn(log, 0, START, START + 40 * 60, 60.0)
    return log, engine_of(versions=versions((0.0, FILE), (START + 20 * 60, after)))


@pytest.mark.parametrize(("after", "ends"), [(WITHDRAWN, 20.0), (STRICTER, 21.0)])
def test_what_stands_by_a_rule_that_is_withdrawn_or_changed_away_is_resolved(
    after: dict[str, Any], ends: float
) -> None:
    log, engine = changed(after)
    _, outcomes = play(log.cuts(), engine)
    opened, resolved = (each for each in findings(outcomes) if each.state != "update")
    assert (opened.state, resolved.state, resolved.time) == ("open", "resolve", START + ends * 60)
    assert (resolved.incident, resolved.turn) == (opened.incident, opened.turn + 1)
    assert resolved.reason in (
        "a is no longer held against burn rate fast: the policy file has no such rule any more.",
        "a no longer burns faster than its budget allows.",
    )


@pytest.mark.parametrize("after", [WITHDRAWN, STRICTER])
def test_its_resolution_is_the_same_after_a_restart_anywhere(after: dict[str, Any]) -> None:
    log, engine = changed(after)
    _, outcomes = play(log.cuts(), engine)
    whole = {each.id for each in findings(outcomes)}
    for stop in range(15, 30):
        disk, found = Disk(), list[OutRecord]()
        first = Worker(log.records[:stop], disk, Random(stop), found, lambda: engine)
        while first.at < stop:
            first.step()
        for _ in first.snapshot():
            pass
        second = Worker(log.records, disk, Random(stop), found, lambda: engine)
        while second.at < len(log.records):
            second.step()
        told = [decode(Finding, r.value or b"") for r in found if r.topic == "findings.v1"]
        assert {each.id for each in told} == whole
        assert len([each for each in told if each.state == "resolve"]) == 1


def test_a_rule_that_comes_back_opens_another_incident() -> None:
    log = Log()
    burn(log, 0, START, START + 60 * 60, 60.0)
    changes = versions((0.0, FILE), (START + 20 * 60, WITHDRAWN), (START + 30 * 60, FILE))
    _, outcomes = play(log.cuts(), engine_of(versions=changes))
    told = [each for each in findings(outcomes) if each.state != "update"]
    assert [(each.state, each.turn) for each in told] == [("open", 1), ("resolve", 2), ("open", 3)]
    assert told[2].incident != told[0].incident


def test_without_a_budget_nothing_burns() -> None:
    log = Log()
    burn(log, 0, START, START + HOUR, 1_000.0)
    _, outcomes = play(log.cuts(), engine_of(FILE | {"defaults": {"team": {}}}))
    assert findings(outcomes) == []


@pytest.mark.parametrize("wrong", [{"short_s": 3_600}, {"long_s": 7_201}, {"long_s": 100_000}, {"times": 0}])
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        engine_of(FILE | {"burn_rates": [FAST | wrong]})


def test_a_budget_of_nothing_is_burned_while_money_is_spent_and_stops_no_worker() -> None:
    log = Log()
    log.add(event(0, START, cost=2 * USD))
    for minute in range(1, 20):
        log.tick(START + 60 * minute)
    nothing = policy(defaults={"team": {"monthly_budget_usd": 0}}, burn_rates=[FAST], policies=[])
    _, outcomes = play(log.cuts(), engine_of(nothing))
    assert [state for state, _ in states(outcomes)] == ["open", "resolve"]
    assert findings(outcomes)[0].reason.startswith("a burns more than its budget of $0.00: $2.00 in 60 min, $2.00 in")
