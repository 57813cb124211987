"""The panel from readings to findings: what opens, what is told again, what ends, and what stays quiet."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from readings import DAY_S, START, bucket, context, new_series, ordinary, session
from spendbrake.detectors.base import Usual
from spendbrake.detectors.facts.new_model import NewModel, NewModelParams
from spendbrake.detectors.gate import Alarms
from spendbrake.detectors.memory.stored import unpack
from spendbrake.detectors.panel import Panel, TeamPanel
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Context, Contributor, Reading

QUICK = {"half_space": {"enabled": True}, "gate": {"warm_buckets": 300, "warm_s": 3_600.0}, "tail": {"burn_in": 100}}
RATE_ONLY = {**QUICK, "half_space": {"enabled": False}}
N = 2_000


class Asked:
    """A context that counts how often it was asked for."""

    def __init__(self, answer: Context) -> None:
        self.answer = answer
        self.times = 0

    def __call__(self) -> Context:
        self.times += 1
        return self.answer


def play(team: TeamPanel, readings: Iterable[Reading], ask: Asked | None = None) -> list[Finding]:
    ask = ask or Asked(context(("key-a", 3), ("key-b", 3)))
    return [finding for reading in readings for finding in team.read(reading, ask)]


def settled(**detection: object) -> tuple[TeamPanel, list[BucketReading]]:
    """Return a team that has seen five hours of ordinary buckets, and those."""
    readings = list(ordinary(N, most_empty=1))
    team = Panel(Detection(**{"params": QUICK, **detection})).team("search")  # type: ignore[arg-type]
    assert play(team, readings) == []
    return team, readings


def slots_of(team: TeamPanel) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what the bucket detectors of the team itself have learned."""
    kept: dict[str, dict[str, dict[str, Any]]] = unpack(team.dump())["senses"]["tracks"][""]["slots"]
    return kept


def burst(after: BucketReading, n: int, usd: float = 1.0, **fields: object) -> list[BucketReading]:
    """Return `n` buckets in a row, a hundred times as dear as ordinary ones."""
    first = round((after.at - START) / 10.0) + 1
    return [bucket(first + i, usd=usd, offset=after.offset + 1 + i, **fields) for i in range(n)]  # type: ignore[arg-type]


def test_a_runaway_team_opens_one_incident_and_is_told_again_as_it_grows() -> None:
    team, readings = settled()
    ask = Asked(context(("key-a", 3), ("key-b", 3)))
    told = [f for f in play(team, burst(readings[-1], 90), ask) if f.family == "rate"]
    assert [f.state for f in told] == ["open"] + ["update"] * (len(told) - 1)
    assert len({f.incident for f in told}) == 1
    assert len({f.id for f in told}) == len(told)
    first = told[0]
    assert (first.team, first.node, first.detector, first.turn) == ("search", "search", "gaussian_tail", 1)
    assert first.time <= readings[-1].at + 60.0
    assert first.severity == "warning"
    assert told[-1].severity == "critical"
    assert "$" in first.reason
    assert "/h" in first.reason
    assert 50 * NANO < told[-1].evidence["excess_nano"] < 92 * NANO
    assert 4 <= len(told) <= 12
    assert ask.times <= len(told) + 5


def test_ordinary_spend_never_asks_for_the_context() -> None:
    team = Panel(Detection(params=QUICK)).team("search")
    ask = Asked(Context())
    assert play(team, ordinary(3_000, seed=3), ask) == []
    assert ask.times == 0
    assert team.wants_until() is None


def test_quiet_time_resolves_at_a_tick_and_what_comes_back_soon_is_the_same_incident() -> None:
    team, readings = settled(params=RATE_ONLY)
    hot = burst(readings[-1], 12)
    opened = play(team, hot)[0]
    due = team.wants_until()
    assert due is not None
    assert team.tick(due - 1.0, hot[-1].offset) == []
    resolved = team.tick(due, hot[-1].offset + 1)
    assert [(f.state, f.incident, f.turn, f.time) for f in resolved] == [("resolve", opened.incident, 2, due)]
    assert team.tick(due + 1.0, hot[-1].offset + 2) == []
    again = burst(hot[-1], 1, late_s=15.0)[0]
    again = replace(again, at=again.at + 1_000.0, now=again.now + 1_000.0, empty_before=100, cost=9 * NANO)
    back = [f for f in play(team, [again]) if f.family == "rate"]
    assert [(f.state, f.incident, f.turn) for f in back] == [("open", opened.incident, 3)]
    assert back[0].evidence["excess_nano"] < 12 * NANO


def test_ticks_that_come_early_change_nothing_and_late_ones_no_id() -> None:
    ends = []
    for ticks in (False, True):
        team, readings = settled(params=RATE_ONLY)
        hot = burst(readings[-1], 12)
        play(team, hot)
        before, due = team.dump(), team.wants_until()
        assert due is not None
        assert team.tick(due - 0.5, 1) == []
        assert team.dump() == before
        ended = team.tick(due, 2) if ticks else []
        later = replace(hot[-1], at=hot[-1].at + 3_000.0, now=hot[-1].now + 3_000.0, empty_before=299, cost=10**7)
        ended += play(team, [later])
        ends.append(([(f.id, f.state, f.turn) for f in ended], team.wants_until()))
    assert ends[0] == ends[1]
    assert [state for _, state, _ in ends[0][0]] == ["resolve"]


def test_after_the_dwell_it_is_another_incident() -> None:
    team, readings = settled(params=RATE_ONLY)
    hot = burst(readings[-1], 12)
    first = {f.incident for f in play(team, hot) if f.family == "rate"}
    later = burst(hot[-1], 1)[0]
    later = replace(later, at=later.at + 10_800.0, now=later.now + 10_800.0, empty_before=1_080, cost=50 * NANO)
    findings = [f for f in play(team, [later]) if f.family == "rate"]
    assert [f.state for f in findings] == ["resolve", "open"]
    assert findings[1].incident not in first


def test_a_key_that_carries_the_spend_is_the_node() -> None:
    team, readings = settled()
    told = play(team, burst(readings[-1], 12), Asked(context(("key-a", 90), ("key-b", 10))))
    assert {(f.node, f.evidence["key"]) for f in told} == {("key-a", "key-a")}
    team, readings = settled()
    told = play(team, burst(readings[-1], 12), Asked(context(("key-a", 70), ("key-b", 30))))
    assert {(f.node, f.evidence.get("key")) for f in told} == {("search", None)}


def test_a_project_that_carries_the_spend_of_many_keys_is_the_node_if_the_tree_has_it() -> None:
    keys = context(*((f"key-{i}", 20) for i in range(5)))
    for node, expected in (("search/shop", "search/shop"), ("", "search")):
        shop = Contributor(kind="project", name="shop", cost=90 * NANO, calls=9, node=node)
        team, readings = settled()
        told = play(team, burst(readings[-1], 12), Asked(replace(keys, cost_15m=100 * NANO, top=(*keys.top, shop))))
        assert {(f.node, f.evidence["project"]) for f in told} == {(expected, "shop")}
        assert "To stop: project shop, $90.00 of team search's $100.00" in told[0].reason
    team, readings = settled()
    half = replace(keys, cost_15m=200 * NANO, top=(*keys.top, shop))
    assert all("project" not in f.evidence for f in play(team, burst(readings[-1], 12), Asked(half)))


def test_a_new_team_is_not_judged_by_its_buckets() -> None:
    team = Panel(Detection(params={"gate": {"warm_buckets": 300, "warm_s": DAY_S}})).team("search")
    readings = list(ordinary(N, most_empty=1))
    assert play(team, [*readings, *burst(readings[-1], 30)]) == []


def test_money_below_the_floor_is_noise() -> None:
    cheap = {"params": QUICK, "floor_usd_h": "0.5"}
    team = Panel(Detection(**cheap)).team("search")  # type: ignore[arg-type]
    readings = list(ordinary(N, most_empty=1, usd=0.0001))
    assert play(team, [*readings, *burst(readings[-1], 30, usd=0.01)]) == []


def test_an_old_bucket_is_told_but_nothing_may_be_limited_for_it() -> None:
    team, readings = settled()
    told = play(team, burst(readings[-1], 12, late_s=301.0))
    assert told
    assert not any(f.current for f in told)
    team, readings = settled()
    assert all(f.current for f in play(team, burst(readings[-1], 12, late_s=299.0)))


def test_late_money_is_scored_again_and_never_learned() -> None:
    team, readings = settled()
    before = slots_of(team)
    late = replace(readings[-3], cost=5 * NANO, now=readings[-1].now + 1.0, offset=readings[-1].offset + 1)
    told = [f for f in play(team, [late]) if f.family == "rate"]
    assert [f.state for f in told] == ["open"]
    after = slots_of(team)
    assert after["gaussian_tail"]["detector"] == before["gaussian_tail"]["detector"]
    assert after["gaussian_tail"]["tail"]["n"] == before["gaussian_tail"]["tail"]["n"]


def test_late_money_that_is_nothing_unusual_is_not_learned_a_second_time() -> None:
    team, readings = settled()
    before = slots_of(team)
    one, latest = readings[-3], readings[-1]
    late = replace(one, cost=one.cost + one.cost // 50, now=latest.now + 1.0, offset=latest.offset + 1)
    assert play(team, [late]) == []
    after = slots_of(team)
    assert after["gaussian_tail"]["detector"] == before["gaussian_tail"]["detector"]
    assert after["gaussian_tail"]["tail"]["n"] == before["gaussian_tail"]["tail"]["n"]


def test_recent_alarms_raise_the_gate_and_it_comes_down_again() -> None:
    gate = Panel(Detection()).gate
    alarms = Alarms(gate.params.alarm_memory_s)
    score = gate.threshold(10.0) + 0.5
    assert gate.unusual(score, 10.0, Usual(1.0, alarms.recent(START)), under_way=False)
    alarms.add(START)
    assert not gate.unusual(score, 10.0, Usual(1.0, alarms.recent(START + 60)), under_way=False)
    assert gate.unusual(score, 10.0, Usual(1.0, alarms.recent(START + 60)), under_way=True)
    assert gate.unusual(score, 10.0, Usual(1.0, alarms.recent(START + 2 * DAY_S)), under_way=False)


def test_the_floor_grows_with_the_team() -> None:
    gate = Panel(Detection()).gate
    assert gate.floor(Usual(0.01)) == NANO // 2
    assert gate.floor(Usual(100.0)) == 50 * NANO


def test_a_new_model_is_told_when_there_is_money_behind_it() -> None:
    team, _ = settled()
    steps = [new_series(cost=int(usd * NANO), now=START + 7 * DAY_S + 60 * i) for i, usd in enumerate((0.1, 0.3, 4, 9))]
    told = play(team, steps)
    assert [(f.state, f.evidence["cost_nano"], f.node, f.detector) for f in told] == [
        ("open", 4 * NANO, "search", "new_model"),
        ("update", 9 * NANO, "search", "new_model"),
    ]
    assert "dear-1" in told[0].reason


def test_a_model_that_is_not_approved_is_told_at_the_first_cent() -> None:
    team, _ = settled()
    told = play(team, [new_series(cost=NANO // 100, approved=False, team_age_s=600.0, age_s=600.0)])
    assert [(f.severity, f.state) for f in told] == [("info", "open")]
    grown = new_series(cost=400 * NANO, approved=False, team_age_s=900.0, age_s=900.0)
    assert [(f.severity, f.state) for f in play(team, [grown])] == [("critical", "update")]


def test_an_approved_model_and_a_young_team_s_models_are_no_news() -> None:
    team, _ = settled()
    assert play(team, [new_series(approved=True, cost=90 * NANO)]) == []
    assert play(team, [new_series(team_age_s=3_600.0, cost=90 * NANO)]) == []


def test_a_new_key_is_the_node_itself() -> None:
    team, _ = settled()
    told = play(team, [new_series(kind="key", name="key-new", cost=9 * NANO)])
    assert [(f.node, f.evidence["key"]) for f in told] == [("key-new", "key-new")]


def test_a_runaway_session_points_at_its_key_and_doublings_are_updates() -> None:
    team, readings = settled()
    now = readings[-1].now + DAY_S
    rising = [session(cost=10 * 2**i * NANO, now=now + 1_800.0 * i, started_at=now - 600.0) for i in range(3)]
    told = play(team, rising)
    assert [(f.state, f.node, f.family) for f in told] == [
        ("open", "key-a", "session"),
        ("update", "key-a", "session"),
        ("update", "key-a", "session"),
    ]
    assert told[-1].severity == "critical"
    assert told[-1].evidence["excess_nano"] == 40 * NANO - NANO // 10


def test_one_dear_call_is_no_runaway() -> None:
    team, readings = settled()
    assert play(team, [session(now=readings[-1].now + DAY_S, calls=2)]) == []


def test_a_session_like_the_dearest_before_it_is_no_news() -> None:
    team, readings = settled()
    now = readings[-1].now + DAY_S
    assert [f.state for f in play(team, [session(session="first", now=now, cost=10 * NANO)])] == ["open"]
    day_later = now + DAY_S + 7_200.0
    assert [f.state for f in play(team, [session(session="next", now=day_later, cost=18 * NANO)])] == ["resolve"], (
        "it was shown at ten dollars, and may have come to as much"
    )
    assert play(team, [session(session="mark", now=day_later, cost=21 * NANO)]) == [], "the next mark is none either"
    assert [f.state for f in play(team, [session(session="dear", now=day_later, cost=41 * NANO)])] == ["open"]


def test_a_new_key_is_news_from_a_twentieth_of_a_day_on_and_a_new_model_much_sooner() -> None:
    news, usual = NewModel(NewModelParams()), Usual(10.0)
    floors = {kind: news.read(new_series(kind=kind), usual).floor for kind in ("model", "key", "project")}
    assert floors == {"model": 1.2 * NANO, "key": 12 * NANO, "project": 12 * NANO}


def test_thousands_of_new_keys_fold_into_the_team() -> None:
    team, _ = settled()
    told = play(team, [new_series(kind="key", name=f"key-{i}", cost=900 * NANO) for i in range(3_000)])
    assert len({f.incident for f in told}) <= 26
    assert "search" in {f.node for f in told}
    assert len(team.dump()) < 100_000


@pytest.mark.parametrize("cut", [0, 1, 700, N, N + 5, N + 60])
def test_a_restart_changes_nothing(cut: int) -> None:
    readings: list[Reading] = list(ordinary(N, most_empty=1))
    last = readings[-1]
    assert isinstance(last, BucketReading)
    readings += burst(last, 90)
    readings += [session(now=last.now + 10_000.0), new_series(now=last.now + 10_001.0, cost=90 * NANO)]
    panel = Panel(Detection(params=QUICK))
    whole, first = panel.team("search"), panel.team("search")
    expected = play(whole, readings)
    got = play(first, readings[:cut])
    got += play(panel.load("search", first.dump()), readings[cut:])
    assert got == expected
    assert {f.family for f in expected} >= {"rate", "new"}


def test_a_log_that_counts_offsets_anew_opens_no_incident_under_an_id_of_the_one_before() -> None:
    panel = Panel(Detection(params=QUICK))
    reading = new_series(cost=90 * NANO, approved=False)
    opened = [play(panel.team("search", epoch=epoch), [reading])[0] for epoch in (1, 2, 3)]
    assert len({finding.incident for finding in opened}) == len({finding.id for finding in opened}) == 3


def test_what_stands_is_resolved_in_the_next_log_under_the_id_it_was_opened_with() -> None:
    panel = Panel(Detection(params=QUICK))
    before = panel.team("search")
    (opened,) = play(before, [new_series(cost=90 * NANO, approved=False)])
    after, over = panel.load("search", before.dump(), epoch=2), before.wants_until()
    assert over is not None
    (resolved,) = after.tick(over, 0)
    assert (resolved.state, resolved.incident) == ("resolve", opened.incident)


def test_a_dump_is_small_the_same_twice_and_changes_nothing() -> None:
    team, readings = settled()
    dump = team.dump()
    assert dump == team.dump()
    assert len(dump) <= 60_000
    other = Panel(Detection(params=QUICK)).load("search", dump)
    assert other.dump() == dump
    assert play(team, burst(readings[-1], 30)) == play(other, burst(readings[-1], 30))


def test_other_parameters_leave_behind_only_what_they_shape() -> None:
    team, _ = settled()
    changed = Panel(
        Detection(params={**QUICK, "half_space": {"height": 5, "enabled": True}, "gaussian_tail": {"grace": 50}})
    )
    slots = slots_of(changed.load("search", team.dump()))
    kept = slots_of(team)
    assert slots["gaussian_tail"]["detector"] == kept["gaussian_tail"]["detector"]
    assert slots["half_space"]["detector"]["n"] == 0


def test_a_state_of_another_team_or_version_is_refused() -> None:
    panel = Panel(Detection())
    with pytest.raises(ValueError, match="not of 'b'"):
        panel.load("b", panel.team("a").dump())
    with pytest.raises(ValueError, match="version 9"):
        panel.load("a", panel.team("a").dump().replace(b'"v":4', b'"v":9'))


def test_heavy_series_are_watched_beside_the_team_and_at_most_eight() -> None:
    team = Panel(Detection(params=QUICK)).team("search")
    readings = list(ordinary(N, most_empty=1))
    play(
        team, [replace(r, kind="key", name="key-a", width_s=60.0, at=START + 60.0 * i) for i, r in enumerate(readings)]
    )
    play(team, [replace(readings[0], kind="key", name=f"key-{i}", at=START + 10.0**6 + i) for i in range(20)])
    assert len(unpack(team.dump())["senses"]["tracks"]) <= 9


def test_the_switch_decides_whether_an_anomaly_is_learned() -> None:
    seen = {}
    for learns in (False, True):
        team, readings = settled(learn_anomalies=learns)
        before = slots_of(team)["gaussian_tail"]["detector"]["moments"][0][1]
        play(team, burst(readings[-1], 90))
        seen[learns] = slots_of(team)["gaussian_tail"]["detector"]["moments"][0][1] / before
    assert seen[False] < 1.2
    assert seen[True] > 2.0


def test_nothing_is_told_when_detection_is_off() -> None:
    team = Panel(Detection(enabled=False)).team("search")
    assert play(team, [new_series(cost=90 * NANO, approved=False)]) == []
