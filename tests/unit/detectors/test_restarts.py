"""Detector state is kept with the team: wherever a worker dies, what is found and what is remembered stay the same."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from readings import DAY_S, START, bucket, context, new_series, ordinary, session
from spendbrake.detectors.base import Amount
from spendbrake.detectors.facts.fan_out import FanOut, FanOutParams
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.memory.votes import Vote, Votes
from spendbrake.detectors.panel import Panel, TeamPanel
from spendbrake.detectors.series.features import Features
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Call, Reading

PANEL = Panel(Detection(params={"half_space": {"enabled": True}, "gate": {"warm_buckets": 200, "warm_s": 3_600.0}}))
GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "panel_3.hex"
MOST_SERIES = 8
MOST_BYTES = 100_000


def sampled(one: BucketReading, i: int) -> BucketReading:
    """The bucket with calls in it: a loop for a while, a batch that comes again, sessions with a cache."""
    looping = 900 <= i < 1_000
    calls = [
        Call(
            one.at + 1.0, one.cost // 3, 7 if looping else 1_000 + i // 3, "key-a", "m-1", 5_000, 3_000, 0, 300, False
        ),
        Call(one.at + 3.0, one.cost // 3, 0, "key-b", "m-2", 4_000 + i % 90, 0, 0, 200 + i % 31, i % 50 == 0),
        Call(one.at + 5.0, one.cost // 3, i // 40, "key-c", "m-3", 900 + 37 * (i % 50), 0, 0, 50 + i % 91, False),
    ]
    return replace(one, sample=tuple(calls))


@cache
def readings() -> tuple[Reading, ...]:
    """Two days of a team with everything that its detectors look at, troubles among it."""
    found: list[Reading] = []
    for i, one in enumerate(ordinary(1_400, most_empty=20, usd=0.01)):
        found.append(sampled(one, i))
        if i % 7 == 0:
            found.append(replace(one, kind="key", name=f"key-{'abc'[i % 3]}", width_s=60.0, sample=()))
        if i % 90 == 0:
            found.append(session(session=f"s-{i}", fingerprint=i // 40, now=one.now, offset=one.offset, cost=NANO))
    last = max(one.at for one in found if isinstance(one, BucketReading))
    first = round((last - START) / 10.0) + 1
    found += [sampled(bucket(first + i, usd=1.0, offset=10_000 + i), 900) for i in range(60)]
    found += [new_series(now=last + 3_600.0 * i, cost=NANO * i, approved=(None, False)[i % 2]) for i in range(1, 5)]
    found += [session(now=last + 40_000.0, cost=30 * NANO)]
    return tuple(found)


def play(cuts: Sequence[int], said: Sequence[tuple[int, bool]]) -> tuple[list[Finding], TeamPanel, Votes]:
    """Run through the readings with restarts before those at `cuts` and words given before those in `said`."""
    votes, findings = Votes(), []
    team, words = PANEL.team("search", votes), dict(said)
    for i, one in enumerate(readings()):
        if i in words:
            incident = findings[-1].incident if findings else "none"
            votes.take(incident, Vote("near_repeats", words[i], one.now, "fay"))
        if i in cuts:
            votes = Votes.from_state(json.loads(json.dumps(votes.to_state())))
            team = PANEL.load("search", team.dump(), votes)
        findings += team.read(one, context)
    return findings, team, votes


N = 1_700
PLACES = st.integers(0, N - 1)


@settings(max_examples=12, deadline=None)
@given(st.sets(PLACES, max_size=6), st.lists(st.tuples(PLACES, st.booleans()), max_size=4))
def test_restarts_anywhere_change_no_finding_and_no_bit_of_what_is_remembered(
    cuts: set[int], said: list[tuple[int, bool]]
) -> None:
    whole, calm, words = play((), said)
    got, team, again = play(sorted(cuts), said)
    assert got == whole
    assert team.dump() == calm.dump()
    assert again.to_state() == words.to_state()


def test_sums_that_detectors_once_kept_each_for_itself_are_read() -> None:
    _, team, _ = play((), ())
    kept = unpack(team.dump())
    talks, amounts = kept["senses"]["talks"], kept["senses"]["amounts"]
    at, hour, days, hour_lost, days_lost, failed, free, tokens = talks.pop("turnover")
    assert min(hour, days, hour_lost, days_lost, failed, tokens) > 0.0
    storm = {"at": at, "failed": failed, "hour": [hour, hour_lost], "days": [days, days_lost]}
    amounts["error_storm"] = {"shape": [], "state": storm}
    amounts["tokens_without_cost"] = {"shape": [], "state": {"figures": [at, free, tokens, days]}}
    assert PANEL.load("search", pack(kept)).dump() == team.dump()
    amounts.clear()
    assert PANEL.load("search", pack(kept)).dump() != team.dump(), "detectors switched off kept nothing"


def test_a_state_of_version_3_is_read_whole() -> None:
    old = zlib.decompress(bytes.fromhex(GOLDEN.read_text("ascii")))
    again = PANEL.load("search", old)
    assert b"null" not in again.dump(), "what would have it packed the slow way"
    assert plain(as_version_3(unpack(again.dump()))) == plain(unpack(old))
    assert PANEL.load("search", again.dump()).dump() == again.dump()


def as_version_3(kept: dict[str, Any]) -> dict[str, Any]:
    """A state as it was once written: with what has learned nothing, and the whole table of vectors."""
    senses, nothing = kept["senses"], {"shape": [], "state": {}}
    amounts, names = senses["amounts"], {build.name for build, _ in PANEL.amounts}
    lines = {"names": [], "figures": np.zeros((0, 4))}
    senses["amounts"] = dict.fromkeys(names, nothing) | {"dearer_model": {"shape": [], "state": lines}} | amounts
    replay = amounts["queue_replay"]["state"]
    tables = {name: np.zeros(2_048, np.uint32) for name in ("tag", "at")}
    for name, table in tables.items():
        table[replay["seen"]["slots"]] = replay["seen"][name]
    sizes = np.zeros((12, 7))
    sizes[replay.pop("sizes")] = replay["lines"]
    replay |= {"seen": tables, "lines": sizes}
    senses["names"] = [[str(number), name] for number, name in senses["names"]]
    kept["incidents"] = [dict.fromkeys(("score", "key", "project")) | one for one in kept["incidents"]]
    kept["records"] = {name: {} for name in names} | kept["records"]
    return kept | {"v": 3, "facts": {build.name: nothing for build, _ in PANEL.facts} | kept["facts"]}


def plain(state: Any) -> Any:
    """A state with its arrays as lists, to be compared."""
    if isinstance(state, dict):
        return {name: plain(part) for name, part in state.items()}
    return (str(state.dtype), state.tolist()) if isinstance(state, np.ndarray) else state


def test_replays_begin_to_tell_chance_anew_where_a_state_knows_no_sizes() -> None:
    _, team, _ = play((), ())
    kept = unpack(team.dump())
    lines = kept["senses"]["amounts"]["queue_replay"]["state"].pop("lines")
    assert lines.max() > 0.0
    again = unpack(PANEL.load("search", pack(kept)).dump())["senses"]["amounts"]["queue_replay"]["state"]
    assert again["lines"].size == 0
    assert again["seen"]["tag"].tolist() == kept["senses"]["amounts"]["queue_replay"]["state"]["seen"]["tag"].tolist()


def test_the_readings_make_detectors_of_all_kinds_speak() -> None:
    findings, *_ = play((), ())
    assert {each.detector for each in findings} >= {"retry_loop", "new_model", "runaway_session", "near_repeats"}
    assert {each.state for each in findings} == {"open", "update", "resolve"}
    assert len(readings()) <= N


def test_state_is_bounded_a_team_and_a_series() -> None:
    _, team, _ = play((), ())
    size = len(team.dump())
    assert size < MOST_BYTES
    alone = PANEL.team("search")
    for one in readings():
        if not isinstance(one, BucketReading) or one.kind is None:
            alone.read(one, context)
    for i in range(3 * MOST_SERIES):
        for k in range(120):
            at = START + 3 * DAY_S + 60.0 * (120 * i + k)
            alone.read(replace(bucket(k), at=at, now=at + 75.0, kind="key", name=f"key-{i}", width_s=60.0), context)
    grown = len(alone.dump())
    assert grown < MOST_BYTES
    assert (grown - size) / MOST_SERIES < 4_000, "bytes that one more series takes"


def test_a_fan_out_of_a_state_that_remembers_no_key_is_told_without_one() -> None:
    detector = FanOut.from_state(FanOutParams(), {"figures": [0.0, 0.0, 500.0, 2.0, 3.0]})
    amount = Amount("fan", 3.0, "key-1", "gpt-4o", 0, 500, 3_600.0, 0.0)
    features = Features(10.0, 10.0, 1.0, 1, [0.0] * 5, 0.1, 10.0, 1, None)
    text = detector.explain(amount, features, str).text
    assert text.startswith("Fan-out: 500 conversations have begun")
    assert text.endswith("to gpt-4o")
