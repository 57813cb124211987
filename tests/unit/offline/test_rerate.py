"""Price fixes against logs that were priced right from the start, and against a recount that knows no engine."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from genai_prices.types import ModelPrice

from enginelog import SECRET, START, Log, Record, books, engine, event, outputs, play, policy, versions
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Delta, InternalKind
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import Prices
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.prices import PriceBook
from spendbrake.streams.engine.prices.data import BUNDLED
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_teams, dirty_teams, restore
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.offline.rerate import DAY_S, Fix, recount

FIXED_AT = START + 5 * 3_600
LATER = FIXED_AT + 60
WRONG, RIGHT = "25", "2.5"


def priced(rate: str, **more: Any) -> dict[str, Any]:
    override = {"provider": "acme", "model": "m", "input_usd_per_mtok": rate, "output_usd_per_mtok": rate}
    return policy(prices={"overrides": [override]}, **more)


def call(i: int, at: float, **kw: Any) -> UsageEvent:
    names = {"provider": "acme", "model": "m", "cost": None, "input_tokens": 1_001 + 7 * i, "output_tokens": 13 * i}
    return event(i, at, **(names | kw))


def traffic() -> Log:
    """Events of two teams over four hours: duplicates, a correction, calls that the fix is not about."""
    log = Log()
    for i in range(400):
        at = START + 36.0 * i
        names: dict[str, Any] = {"team": "ab"[i % 2], "api_key_id": f"k{i % 3}", "project": None if i % 7 else "p"}
        names["environment"] = "prod" if i % 5 else None
        log.add(call(i, at, **names))
        if i % 10 == 0:
            log.add(call(i, at, **names), at + 1)
        if i % 13 == 0:
            log.add(event(10_000 + i, at, team="a"), at + 2)
        if i % 50 == 3:
            log.add(call(20_000 + i, at, **names, kind="correction", replaces=call(i, at, **names)), at + 30)
    log.tick(FIXED_AT - 10)
    log.tick(FIXED_AT)
    return log


BOTH = versions((0.0, priced(WRONG)), (FIXED_AT, priced(RIGHT)))


def fix_of(log: Log, given: Any = BOTH, begin: float = START, end: float = START + DAY_S) -> Fix:
    book = RuleBook(1, given)
    fix = Fix(book.newest().prices, begin, end)

    async def batches() -> AsyncIterator[Any]:
        for cut in log.every(100):
            yield cut

    settings = EngineSettings(partitions=1, secrets=(SECRET,), dedupe_blocks=4)
    asyncio.run(recount(batches(), 0, book, settings, fix))
    return fix


def write(log: Log, deltas: Iterable[Delta], now: float = LATER, kind: InternalKind = "delta") -> None:
    for delta in deltas:
        log.internal(kind, now, delta.team.encode(), encode(delta))


def rerated(log: Log, **kw: Any) -> list[Delta]:
    deltas = list(fix_of(log, **kw).deltas(2, "cli:fay"))
    write(log, deltas)
    return deltas


def without_fine(state: PartitionState) -> dict[Any, Any]:
    """All amounts but the 10 s buckets: those are the detectors', who saw what they saw."""
    return {
        name: (*amounts[:2], *amounts[3:]) if isinstance(name, str) else amounts
        for name, amounts in books(state).items()
    }  # fmt: skip


def test_after_a_price_fix_all_amounts_are_what_they_would_be_had_the_price_been_right_from_the_start() -> None:
    log = traffic()
    right, _ = play(log.every(64), engine(priced(RIGHT)))
    wrong, _ = play(log.every(64), engine(versions=BOTH))
    assert without_fine(wrong) != without_fine(right)
    deltas = rerated(log)
    assert len({delta.id for delta in deltas}) == len(deltas) > 4
    fixed, _ = play(log.every(64), engine(versions=BOTH))
    assert without_fine(fixed) == without_fine(right)


def test_a_price_fix_comes_to_what_a_recount_without_the_engine_says() -> None:
    log = traffic()
    rerated(log)
    state, _ = play(log.every(64), engine(versions=BOTH))
    spent: defaultdict[tuple[str, str], int] = defaultdict(int)
    for i in range(400):
        tokens = [1_001 + 7 * i + 13 * i, 1_001 + 7 * (20_000 + i) + 13 * (20_000 + i)][i % 50 == 3]
        cost = round(Fraction(RIGHT) / 10**6 * tokens * 10**9)
        for name in ("ab"[i % 2], f"k{i % 3}"):
            spent["ab"[i % 2], name] += cost
        if i % 13 == 0:
            spent["a", "a"] += 10_000_000
            spent["a", "key-1"] += 10_000_000
    table, teams = state.series, state.teams
    found = {
        (teams.names[name.team], name.name): (int(table.total[row]), int(table.month[row]))
        for row, name in enumerate(table.names)
        if name.kind in ("team", "key")
    }
    assert found == {name: (amount, amount) for name, amount in spent.items()}


def test_a_second_run_finds_nothing_to_move() -> None:
    log = traffic()
    rerated(log)
    again = fix_of(log)
    assert list(again.deltas(2, "cli:fay")) == []
    assert {team: bill.moved for team, bill in again.bills.items()} == {"a": 0, "b": 0}


def test_a_run_that_was_cut_off_is_gone_on_with() -> None:
    log, whole = traffic(), traffic()
    deltas = rerated(whole)
    write(log, deltas[::2])
    rest = rerated(log)
    assert sorted(d.id for d in (*deltas[::2], *rest)) == sorted(d.id for d in deltas)
    done = (play(each.every(64), engine(versions=BOTH))[0] for each in (log, whole))
    assert without_fine(next(done)) == without_fine(next(done))


def test_two_runs_at_once_are_applied_once() -> None:
    log = traffic()
    first, second = (list(fix_of(log).deltas(2, by)) for by in ("cli:fay", "cli:eli"))
    write(log, [*first, *second])
    plain = traffic()
    write(plain, first)
    once, _ = play(plain.every(64), engine(versions=BOTH))
    twice, outcomes = play(log.every(64), engine(versions=BOTH))
    assert without_fine(once) == without_fine(twice)
    assert sum(outcome.counters["duplicates", ""] for outcome in outcomes) == 40 + len(second)


def test_a_price_put_back_undoes_the_fix() -> None:
    log = traffic()
    rerated(log)
    back_at = LATER + 60
    three = versions((0.0, priced(WRONG)), (FIXED_AT, priced(RIGHT)), (back_at, priced(WRONG)))
    log.tick(back_at)
    deltas = list(fix_of(log, three).deltas(3, "cli:fay"))
    write(log, deltas, back_at + 60)
    state, _ = play(log.every(64), engine(versions=three))
    before, _ = play(traffic().every(64), engine(versions=BOTH))
    totals = [{n.label: int(s.series.total[r]) for r, n in enumerate(s.series.names)} for s in (state, before)]
    assert totals[0] == totals[1]


def test_a_new_price_book_is_put_on_what_the_one_before_had_counted() -> None:
    (openai,) = (each for each in BUNDLED if each.id == "openai")
    dearer = replace(openai, models=[_ten_times(model) for model in openai.models])
    earlier = [dearer if each is openai else each for each in BUNDLED]
    log = Log()
    for i in range(50):
        log.add(event(i, START + i, cost=None, input_tokens=1_000 + i, output_tokens=i))
    log.tick(FIXED_AT)
    log.add(event(100, FIXED_AT + 1, cost=None, input_tokens=1_000_000, output_tokens=0))
    counted = RuleBook(1, versions((0.0, policy())), earlier=(earlier, FIXED_AT))
    fix = Fix(PriceBook(Prices()), START, START + DAY_S)
    settings = EngineSettings(partitions=1, secrets=(SECRET,), dedupe_blocks=4)

    async def batches() -> AsyncIterator[Any]:
        for cut in log.every(10):
            yield cut

    asyncio.run(recount(batches(), 0, counted, settings, fix))
    after = sum(2_500 * (1_000 + i) + 10_000 * i for i in range(50)) + 2_500_000_000
    bill = fix.bills["a"]
    assert (bill.after, bill.before) == (after, 10 * (after - 2_500_000_000) + 2_500_000_000)
    assert sum(sum(d.minutes.values()) for d in fix.deltas(1, "x")) == -9 * (after - 2_500_000_000)


def _ten_times(model: Any) -> Any:
    if model.id != "gpt-4o":
        return model
    rates = {name: getattr(model.prices, name) for name in ("input_mtok", "output_mtok", "cache_read_mtok")}
    return replace(model, prices=ModelPrice(**{name: 10 * rate for name, rate in rates.items()}))


def test_only_the_days_asked_for_are_moved() -> None:
    log = Log()
    log.add(call(1, START + 60))
    log.add(call(2, START + DAY_S + 60))
    log.tick(START + DAY_S + 200)
    given = versions((0.0, priced(WRONG)), (START + DAY_S + 100, priced(RIGHT)))
    fix = fix_of(log, given, START, START + DAY_S)
    (delta,) = fix.deltas(2, "x")
    assert set(delta.minutes) == {int(START + 60) // 60}
    with pytest.raises(ValueError, match="whole days of UTC"):
        fix_of(log, given, START + 1, START + DAY_S)


def test_what_a_producer_has_billed_stays_and_what_had_no_price_gets_one() -> None:
    log = Log()
    log.add(event(1, START, provider="acme", model="m"))
    log.add(event(2, START, provider="acme", model="m", cost=None, input_tokens=1_000_000, output_tokens=0))
    log.tick(FIXED_AT)
    fix = fix_of(log, versions((0.0, policy()), (FIXED_AT, priced(RIGHT))))
    (delta,) = fix.deltas(2, "x")
    assert list(delta.minutes.values()) == [2_500_000_000 - 15_000_000_000]
    assert (fix.bills["a"].before, fix.bills["a"].after) == (15_010_000_000, 2_510_000_000)


def test_a_price_fix_resolves_tiers_and_lifts_the_block() -> None:
    document = {"defaults": {"team": {"monthly_budget_usd": 1}}}
    given = versions((0.0, priced(WRONG, **document)), (FIXED_AT, priced(RIGHT, **document)))
    log = Log()
    log.add(call(1, START, input_tokens=50_000, output_tokens=0))
    log.tick(FIXED_AT)
    rerated(log, given=given)
    log.tick(LATER + 1)
    _, outcomes = play(log.every(1), engine(versions=given))
    sent = outputs(record for outcome in outcomes for record in outcome.records)
    findings = sorted((decode(Finding, r.value or b"") for r in sent["findings.v1"]), key=lambda f: (f.time, f.tier))
    assert [(f.tier, f.state) for f in findings] == [
        (tier, state) for state in ("open", "resolve") for tier in ("critical", "hard-cap", "soft")
    ]
    verdicts = [decode(Action, r.value or b"") for r in sent["actions.v1"]]
    block = [a.verdict for a in sorted(verdicts, key=lambda a: a.time) if a.effect == "limits"]
    assert block == ["block", "allow"]


def test_a_dearer_price_opens_tiers() -> None:
    document = {"defaults": {"team": {"monthly_budget_usd": 1}}}
    given = versions((0.0, priced(RIGHT, **document)), (FIXED_AT, priced(WRONG, **document)))
    log = Log()
    log.add(call(1, START, input_tokens=50_000, output_tokens=0))
    log.tick(FIXED_AT)
    rerated(log, given=given)
    _, outcomes = play(log.every(1), engine(versions=given))
    sent = outputs(record for outcome in outcomes for record in outcome.records)
    assert Counter(decode(Finding, r.value or b"").state for r in sent["findings.v1"]) == {"open": 3}


def after_deaths(log: Log, given: Engine) -> Iterator[PartitionState]:
    """Yield what workers make of a log that find rows stored past the commit: near the end of the log, and at it."""
    for stop in (len(log.records) - 3, len(log.records)):
        state = given.new_state(0, 1)
        begun, more = list(log.cuts([len(log.records) - 8, stop]))[:2]
        given.step(state, begun)
        state.mark()
        committed, partition = len(begun.records), copy_partition(state)
        given.step(state, more)
        units = copy_teams(state, dirty_teams(state))
        rows = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
        rows |= {row.key: row.value for row in (*copy_blocks(state), partition)}
        again = given.new_state(0, 1)
        restore(again, rows, committed)
        for cut in log.cuts([committed]):
            if cut.first >= committed:
                given.step(again, cut)
        yield again


def test_a_price_fix_is_found_again_after_a_crash_and_applied_once() -> None:
    log = traffic()
    rerated(log)
    given = engine(versions=BOTH)
    whole, _ = play(log.every(64), given)
    assert [without_fine(state) == without_fine(whole) for state in after_deaths(log, given)] == [True, True]


def test_a_key_that_a_fix_names_before_any_call_was_seen_then_wherever_the_log_is_cut() -> None:
    log = Log()
    log.add(event(0, START))
    for n, (key, minute) in enumerate((("too-old", 1), ("k", int(START) // 60)), 1):
        write(
            log, [Delta(id=key, version=1, team="a", key=key, provider="p", model="m", minutes={minute: 5})], START + n
        )
    log.add(event(1, START + 9, api_key_id="k"))
    log.add(event(2, START + 9, api_key_id="too-old"))
    for size in (1, 9):
        state, _ = play(log.every(size))
        seen = {name: chain.seen_at for name, chain in state.heads[0].keys.items()}
        assert seen == {"key-1": START, "k": START + 2, "too-old": START + 9}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"key": b"b"}, "misplaced"), ({"minutes": {int(START - 61 * DAY_S) // 60: 5}}, "bad_time")],
)
def test_a_fix_that_cannot_be_placed_is_a_dead_letter(change: dict[str, Any], reason: str) -> None:
    minutes = change.get("minutes", {int(START) // 60: 5})
    delta = Delta(id="d", version=1, team="a", key="k", provider="p", model="m", minutes=minutes)
    key, value = change.get("key", b"a"), encode(delta)
    log = Log()
    log.records.append(Record(value, START + 60, key, seal("delta", "usage.v1", key, value, SECRET)))
    state, (outcome,) = play(log.cuts())
    assert outcome.counters["dead_letters", reason] == 1
    assert len(state.series) == 0


def test_a_fix_of_more_than_a_record_may_move_is_written_in_pieces() -> None:
    log, tokens = Log(), 100_000_000
    for i in range(7):
        log.add(call(i, START, input_tokens=tokens, output_tokens=0))
    log.tick(FIXED_AT)
    given = versions((0.0, priced("2500")), (FIXED_AT, priced(RIGHT)))
    deltas = list(fix_of(log, given).deltas(2, "cli:fay"))
    assert len({delta.id for delta in deltas}) == len(deltas) == 2
    write(log, deltas)
    state, outcomes = play(log.cuts(), engine(versions=given))
    assert int(state.series.total[0]) == 7 * tokens * 2_500
    assert not any(record.topic == "usage.dlq.v1" for outcome in outcomes for record in outcome.records)


def test_a_fix_at_prices_by_which_a_call_is_too_dear_is_refused() -> None:
    log = Log()
    log.add(call(1, START, input_tokens=10**9))
    log.tick(FIXED_AT)
    with pytest.raises(ValueError, match=r"a call costs .* at these prices, more than"):
        fix_of(log, versions((0.0, priced(RIGHT)), (FIXED_AT, priced("2500"))))
