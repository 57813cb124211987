"""What single calls tell: loops, machines, replays, cache misses; and the records their money is held against."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from readings import DAY_S, START, bucket, context, ordinary
from spendbrake.detectors.memory.mix import Mix
from spendbrake.detectors.memory.records import Record, Records
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.memory.talks import Talks, Turn
from spendbrake.detectors.memory.vectors import Vectors
from spendbrake.detectors.panel import Panel, TeamPanel
from spendbrake.detectors.repeats.cache_misses import CacheMisses, CacheMissesParams
from spendbrake.detectors.series.features import Rolling
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Call

HOUR_S = 3_600.0


def call(at: float, **fields: object) -> Call:
    one = Call(at, NANO // 10, 7, "key-a", "m-1", 5_000, 0, 0, 300, False)
    return one._replace(**fields)  # type: ignore[arg-type]


def reading(i: int, *calls: Call, empty: int = 0) -> BucketReading:
    return bucket(
        i,
        usd=sum(c.cost for c in calls) / NANO,
        empty=empty,
        calls=len(calls),
        input_tokens=sum(c.input_tokens for c in calls),
        cache_read_tokens=sum(c.cache_read_tokens for c in calls),
        output_tokens=sum(c.output_tokens for c in calls),
        sample=calls,
    )


def every(n: int, gap_s: float, first: int, **fields: object) -> Iterator[BucketReading]:
    """Yield `n` buckets of one call each, `gap_s` apart."""
    step = round(gap_s / 10.0)
    for i in range(n):
        place = first + i * step
        yield reading(place, call(START + 10.0 * place + 1.0, **fields), empty=step - 1)


def settled() -> TeamPanel:
    """Return a team of varied small calls that is three days old."""
    team = Panel(Detection()).team("search")
    for i, one in enumerate(ordinary(2_600, most_empty=18, usd=0.002)):
        varied = call(
            one.at, session=1_000 + i // 3, cost=one.cost, input_tokens=700 + 37 * (i % 50), output_tokens=50 + i % 91
        )
        assert not team.read(replace(one, sample=(varied,)), context)
    return team


def play(team: TeamPanel, readings: Iterable[BucketReading]) -> list[Finding]:
    return [finding for one in readings for finding in team.read(one, context)]


def turns(calls: Sequence[Call]) -> list[Turn]:
    talks = Talks()
    return [turn for i, one in enumerate(calls) for turn in talks.advance(reading(i, one))]


LATER = 30_000
"""Bucket at which troubles of settled teams begin."""


def test_a_retry_loop_is_told_within_a_dollar_and_named() -> None:
    told = play(settled(), every(60, 20.0, LATER, cost=NANO // 5, session=99))
    assert told[0].time < START + 10.0 * LATER + 300.0
    first = next(f for f in told if f.detector == "retry_loop")
    assert (first.family, first.state, first.severity) == ("loop", "open", "warning")
    assert first.evidence["key"] == "key-a"
    assert "Retry loop: 4 calls in a row to m-1 of equal token counts" in first.reason
    assert first.evidence["excess_nano"] < 2 * NANO
    assert len({f.incident for f in told}) == 1


def test_a_loop_of_nearly_equal_calls_is_told_too() -> None:
    sizes = (90_000, 91_000, 89_500, 90_700)
    loop = [
        r for i, size in enumerate(sizes * 20) for r in every(1, 60.0, LATER + 6 * i, input_tokens=size, session=99)
    ]
    assert {f.detector for f in play(settled(), loop)} >= {"near_repeats"}


def test_a_machine_is_known_by_its_beat() -> None:
    beat = [
        r
        for i in range(80)
        for r in every(
            1, 60.0, LATER + 6 * i, input_tokens=3_000 + 977 * (i * i % 13), output_tokens=100 + 61 * (i % 7)
        )
    ]
    assert {f.detector for f in play(settled(), beat)} >= {"regular_calls"}


def test_a_batch_that_runs_again_is_told() -> None:
    batch = [(4_000 + 311 * i, 200 + 17 * (i * i % 31)) for i in range(120)]
    replays = [
        reading(
            LATER + 200 * k + i, call(START + 10.0 * (LATER + 200 * k + i), session=0, input_tokens=a, output_tokens=b)
        )
        for k in range(3)
        for i, (a, b) in enumerate(batch)
    ]
    told = [f for f in play(settled(), replays) if f.detector == "queue_replay"]
    assert told
    assert "as if a queue were replayed" in told[0].reason


def test_a_batch_that_runs_again_is_told_where_half_of_the_small_calls_coincide() -> None:
    team = settled()
    for place in range(LATER - 6_000, LATER, 4):
        size = 40 + place % 64
        alike = call(START + 10.0 * place, session=place, cost=NANO // 50, input_tokens=size, output_tokens=9)
        team.read(reading(place, alike, empty=3), context)
    batch = [(4_000 + 311 * i, 200 + 17 * (i * i % 31)) for i in range(120)]
    replays = [
        reading(LATER + i, call(START + 10.0 * (LATER + i), session=LATER + i, input_tokens=a, output_tokens=b))
        for i, (a, b) in enumerate(batch * 4)
    ]
    assert "queue_replay" in {f.detector for f in play(team, replays)}


def misses(every_nth: int, session: int = 99) -> float:
    """Return the greatest amount of a conversation of 200 calls that misses the cache once in so many."""
    detector, talks, rolling, most = CacheMisses(CacheMissesParams()), Talks(), Rolling(), 0.0
    for i in range(200):
        hit = i % every_nth or not i
        one = call(60.0 * i, session=session, input_tokens=50_000, cache_read_tokens=49_000 if hit else 0)
        at = reading(6 * i, one, empty=5)
        taken = talks.advance(at)
        x = rolling.advance(at)
        most = max([most, *(amount.usd for amount in detector.amounts(x, taken) if amount.subject == "session")])
    return most


def test_a_conversation_that_misses_now_and_then_counts_for_less_than_its_misses() -> None:
    assert misses(5) > 6 * misses(20) > 0.0, "four times as many, and a miss in twenty is no habit"
    assert misses(150) == 0.0, "nor is one alone: the context is new"
    assert misses(20, session=0) > 1.5 * misses(20), "of no session it is many conversations'"


def test_input_that_should_have_come_from_the_cache_is_counted() -> None:
    hit = call(0.0, input_tokens=50_000, cache_read_tokens=49_000)
    miss = hit._replace(cache_read_tokens=0)
    seen = turns([hit._replace(at=60.0 * i) for i in range(5)] + [miss._replace(at=300.0)])
    assert [turn.missed_usd for turn in seen[:5]] == [0.0] * 5
    assert 0.07 < seen[5].missed_usd < 0.1
    late = turns([hit._replace(at=60.0 * i) for i in range(5)] + [miss._replace(at=1_000.0)])
    assert late[5].missed_usd == 0.0


@pytest.mark.parametrize(("model", "missed"), [("m-1", 8), ("m-2", 0)])
def test_a_conversation_never_cached_stands_out_among_those_that_are(model: str, missed: int) -> None:
    talks = Talks()
    for i in range(300):
        kept = 47_000 + 100 * (i % 9)
        talks.advance(reading(i, call(10.0 * i, session=1 + i // 10, input_tokens=50_000, cache_read_tokens=kept)))
    talks = Talks.from_state(unpack(pack(talks.to_state())))
    fresh = [call(4_000.0 + 10.0 * i, session=77, model=model, input_tokens=50_000) for i in range(9)]
    seen = [turn for i, one in enumerate(fresh) for turn in talks.advance(reading(400 + i, one))]
    assert sum(turn.missed_usd > 0.0 for turn in seen) == missed, "the first has nothing to find there"


def test_a_cheap_conversation_of_many_calls_is_told_beside_the_dear_ones() -> None:
    team = settled()
    for place in range(40_000, 40_080):
        dear = (call(START + 10.0 * place + k, session=900 + k, key="key-d", cost=10**8 + k) for k in range(1, 8))
        loop = call(START + 10.0 * place, session=7, key="key-l", cost=1_000 + place)
        seen = (loop, *dear) if place % 10 == 0 else (loop,)
        team.read(reading(place, *seen), context)
    sessions = team._telling.story(START + 400_810.0).sessions
    assert [key for _, key, _, _ in sessions] == ["key-d"] * 5 + ["key-l"]
    assert sessions[-1][3] == 80


def test_a_pause_of_hours_ends_a_conversation() -> None:
    same = [call(60.0 * i) for i in range(4)]
    assert [turn.same for turn in turns(same)] == [False, True, True, True]
    assert [turn.same for turn in turns([*same, call(7 * HOUR_S)])][-1] is False


def test_sampled_calls_stand_for_the_money_of_their_bucket() -> None:
    one = replace(reading(0, call(1.0), call(2.0)), cost=4 * NANO)
    assert sum(turn.usd for turn in Talks().advance(one)) == pytest.approx(4.0)


def test_an_amount_is_usual_for_good_from_a_day_on() -> None:
    record = Record()
    record.admit(5.0, START)
    record.admit(1.0, START + 0.9 * DAY_S)
    assert record.reference(START + 0.1 * DAY_S) == 5.0, "of the first day, what is over"
    record.admit(1.0, START + 1.3 * DAY_S)
    assert record.reference(START + 1.3 * DAY_S) == 5.0
    record.admit(1.0, START + 22.3 * DAY_S)
    assert record.reference(START + 22.3 * DAY_S) >= 1.0


def test_what_a_day_brings_on_is_no_excuse_for_itself() -> None:
    record = Record()
    for day in range(3):
        record.admit(1.0, START + day * DAY_S)
    record.admit(9.0, START + 3 * DAY_S)
    assert record.reference(START + 3.5 * DAY_S) == pytest.approx(1.0, rel=0.2)


def test_a_machine_that_has_always_been_there_is_no_news() -> None:
    team = Panel(Detection()).team("search")
    assert play(team, every(2_000, 90.0, 0, cost=NANO // 100)) == []


def test_what_was_told_must_be_passed_for_two_days() -> None:
    record = Record()
    record.told, record.told_at = 9.0, START
    assert record.reference(START + DAY_S) == 9.0
    assert record.reference(START + 3 * DAY_S) == 0.0


def test_records_are_bounded_and_come_back_as_they_were() -> None:
    records = Records()
    for i in range(1_000):
        records.of(f"s-{i}").admit(float(i), START + 60.0 * i)
    state = unpack(pack(records.to_state()))
    assert len(state["names"]) == 96
    assert pack(Records.from_state(state).to_state()) == pack(records.to_state())


def test_vectors_forget_after_a_day_and_within_a_session() -> None:
    vectors, one = Vectors(), call(START, session=0)
    assert not vectors.again(one)
    assert not vectors.again(one._replace(at=START + 30.0)), "that is a retry"
    assert vectors.again(one._replace(at=START + 3_000.0))
    assert not vectors.again(one._replace(at=START + 2.5 * DAY_S))
    assert not vectors.again(one._replace(session=5, at=START + 2.6 * DAY_S, model="m-2"))
    assert not vectors.again(one._replace(session=5, at=START + 2.7 * DAY_S, model="m-2")), "the same session"
    assert vectors.again(one._replace(session=6, at=START + 2.8 * DAY_S, model="m-2"))


def test_the_parts_of_a_change_sum_to_it_exactly() -> None:
    mix, talks = Mix(), Talks()
    for i in range(3_000):
        one = reading(6 * i, call(START + 60.0 * i, model="m-1"), empty=5)
        mix.add(one, talks.advance(one))
    for i in range(3_000, 3_060):
        dear = [call(START + 60.0 * i + k, model="m-2", cost=NANO, output_tokens=900, error=k == 1) for k in range(3)]
        one = replace(reading(6 * i, *dear, empty=5), errors=1)
        mix.add(one, talks.advance(one))
    moved = {part.factor: part for part in mix.moved()}
    before, after = (round(sums.per_hour(sums.usd) * NANO) for sums in (mix.usual, mix.now))
    assert sum(part.amount for part in moved.values()) == after - before
    assert moved["calls"].times > 1.2
    assert moved["retries"].times > 1.1
    assert moved["model mix"].times > 2.0
    assert moved["price a token"].times == pytest.approx(1.0, rel=0.35)


def test_a_restart_amid_a_loop_changes_nothing() -> None:
    loop = list(every(40, 20.0, LATER, cost=NANO // 5, session=99))
    whole, first = settled(), settled()
    expected = play(whole, loop)
    got = play(first, loop[:17])
    second = Panel(Detection()).load("search", first.dump())
    assert got + play(second, loop[17:]) == expected
    assert second.dump() == whole.dump()
    assert len(whole.dump()) <= 100_000
