"""Burn rates of billing groups and organizations: two windows, over all that their teams have told."""

from itertools import groupby
from typing import Any

from rollupslog import START, USD, Deployment, Teams, cuts, engine, tree
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import BURN_RATE, Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.parents.rows import copy_parents, copy_partition, dirty_parents, restore

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
FAST = {"name": "fast", "long_s": 3_600, "short_s": 300, "times": "14.4", "severity": "critical"}
SLOW = {"name": "slow", "long_s": 259_200, "short_s": 21_600, "times": "1.5", "severity": "warning", "floor_usd": 5}
# A month of 744 h: 14.4 times the rate of $744 is $14.40 an hour.
NODES = (
    ("acme", "organization", None, 7_440.0),
    ("apps", "billing_group", "acme", 744.0),
    ("rest", "billing_group", "acme", None),
)


def burnt(usd_h: float, begin: float, end: float, step: float = MINUTE, **kw: Any) -> Deployment:
    """Two teams of one group that spend so much an hour together, and tell of it each `step`."""
    deployment = Deployment(engine(tree(*NODES, **{"burn_rates": [FAST], "policies": []} | kw)))
    teams = Teams()
    at = begin
    while at < end:
        for team in ("a", "b"):
            teams.spend(team, at, round(usd_h * step / HOUR * USD / 2))
        deployment.put(*teams.tell("apps", at + 1, "a", "b"))
        at += step
    return deployment


def findings(deployment: Deployment) -> list[Finding]:
    found = [decode(Finding, record.value or b"") for record in deployment.records("findings.v1")]
    return [each for each in found if each.detector == BURN_RATE]


def states(deployment: Deployment) -> list[tuple[str, str]]:
    return [(each.node, each.state) for each in findings(deployment) if each.state != "update"]


def test_a_group_whose_teams_burn_together_is_told_and_its_end_too() -> None:
    deployment = burnt(15.0, START, START + HOUR + 10 * MINUTE)
    (opened,) = [each for each in findings(deployment) if each.state == "open"]
    assert (opened.node, opened.team, opened.severity, opened.family) == ("apps", "", "critical", "burn_rate/fast")
    assert START + HOUR <= opened.time < START + HOUR + 4 * MINUTE
    assert opened.reason.startswith("apps burns 15.0 times its budget of $744.00: $15.00 in 60 min, $1.25 in")
    deployment.tick(START + 2 * HOUR)
    assert states(deployment) == [("apps", "open"), ("apps", "resolve")]


def test_the_organization_burns_by_its_own_budget() -> None:
    assert states(burnt(150.0, START, START + 3 * MINUTE)) == []
    deployment = burnt(150.0, START, START + HOUR + 5 * MINUTE)
    assert ("acme", "open") in states(deployment)
    assert ("rest", "open") not in states(deployment), "without a budget nothing burns"


def test_a_burst_that_is_over_burns_no_more_in_the_short_window() -> None:
    deployment = burnt(100.0, START, START + 9 * MINUTE)
    deployment.tick(START + 9 * MINUTE + 10)
    deployment.tick(START + 20 * MINUTE)
    assert states(deployment) == [("apps", "open"), ("apps", "resolve")]
    deployment.tick(START + 40 * MINUTE)
    assert len(states(deployment)) == 2, "$15 in the hour, nothing in the last five minutes"


def test_a_slow_burn_is_seen_over_three_days_and_six_hours() -> None:
    slow = burnt(1.6, START, START + 5 * DAY, HOUR, burn_rates=[SLOW])
    assert states(slow) == [("apps", "open")]
    assert "burns 1.6 times its budget" in findings(slow)[-1].reason
    assert states(burnt(1.4, START, START + 5 * DAY, HOUR, burn_rates=[SLOW])) == []


def test_a_rule_may_be_about_some_levels_only() -> None:
    only = [FAST | {"levels": ["organization"]}]
    assert {node for node, _ in states(burnt(150.0, START, START + 70 * MINUTE, burn_rates=only))} == {"acme"}


def test_what_burns_climbs_its_ladder_and_is_lifted() -> None:
    rungs = [
        {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1}},
        {"name": "stop", "after_s": 600, "limit": {"verdict": "block"}},
    ]
    ladder = {"name": "burning", "when": {"detectors": [BURN_RATE]}, "hold_s": 600, "rungs": rungs}
    deployment = burnt(40.0, START, START + 100 * MINUTE, policies=[ladder])
    deployment.tick(START + 3 * HOUR)
    deployment.tick(START + 4 * HOUR)
    made = [decode(Action, record.value or b"") for record in deployment.records("actions.v1")]
    ours = [each.verdict for each in made if each.effect == "limits" and each.node == "apps"]
    assert [verdict for verdict, _ in groupby(ours)] == ["throttle", "block", "allow"]


def test_a_restart_says_the_same_as_none() -> None:
    whole = burnt(20.0, START, START + 90 * MINUTE)
    whole.tick(START + 3 * HOUR)
    says_the_same_after_a_restart(whole)


def test_a_restart_withdraws_a_rule_as_none_does() -> None:
    before, gone = tree(*NODES, burn_rates=[FAST], policies=[]), tree(*NODES, burn_rates=[], policies=[])
    whole = Deployment(engine(before, gone, begins=[START + 75 * MINUTE]))
    teams = Teams()
    for minute in range(90):
        teams.spend("a", START + minute * MINUTE, USD)
        whole.put(*teams.tell("apps", START + minute * MINUTE + 1, "a"))
    assert states(whole) == [("apps", "open"), ("apps", "resolve")]
    says_the_same_after_a_restart(whole)


def says_the_same_after_a_restart(whole: Deployment) -> None:
    """Stop at many places, take the rows up again, go on: the same findings, to the byte."""
    (log,) = whole.logs.values()
    said = {record.value for record in whole.records("findings.v1")}
    of = whole.of
    for stop in range(30, len(log), 37):
        state, found = of.new_state(0, 1), set()
        for cut in cuts(log[:stop], 16):
            found |= {r.value for r in of.step(state, cut).records if r.topic == "findings.v1"}
        state.mark()
        units = copy_parents(state, dirty_parents(state))
        rows = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
        partition = copy_partition(state)
        again = of.new_state(0, 1)
        restore(again, rows | {partition.key: partition.value}, stop)
        for cut in cuts(log, 1):
            if cut.first >= stop:
                found |= {r.value for r in of.step(again, cut).records if r.topic == "findings.v1"}
        assert found == said


def test_a_rule_that_is_no_longer_about_a_node_is_resolved() -> None:
    before, after = (tree(*NODES, burn_rates=[FAST | more], policies=[]) for more in ({}, {"levels": ["organization"]}))
    deployment = Deployment(engine(before, after, begins=[START + 70 * MINUTE]))
    teams = Teams()
    for minute in range(80):
        teams.spend("a", START + minute * MINUTE, USD)
        deployment.put(*teams.tell("apps", START + minute * MINUTE + 1, "a"))
    assert [each for each in states(deployment) if each[0] == "apps"] == [("apps", "open"), ("apps", "resolve")]


def test_a_rule_or_a_node_that_is_withdrawn_takes_what_stands_with_it() -> None:
    before, gone = tree(*NODES, burn_rates=[FAST], policies=[]), tree(*NODES, burn_rates=[], policies=[])
    without = tree(*(each for each in NODES if each[0] != "apps"), burn_rates=[FAST], policies=[])
    for after in (gone, without):
        deployment = Deployment(engine(before, after, begins=[START + 70 * MINUTE]))
        teams = Teams()
        for minute in range(80):
            teams.spend("a", START + minute * MINUTE, USD)
            deployment.put(*teams.tell("apps", START + minute * MINUTE + 1, "a"))
        told = [each for each in findings(deployment) if each.node == "apps" and each.state != "update"]
        assert [(each.state, each.turn) for each in told] == [("open", 1), ("resolve", 2)]
        assert told[1].time < START + 71 * MINUTE, "with the policy's change"
        assert told[1].incident == told[0].incident
