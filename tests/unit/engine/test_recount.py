"""The engine against a recount of the same log in plain Python: every event counted once, bad ones beside good ones."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginelog import SECRET, START, Cut, Log, Record, engine, event, policy
from recount import DAY_S, Recount, price_of
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.calendar import day_id
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState

ZONE = "America/St_Johns"
POLICY = policy(
    calendar={"timezone": ZONE},
    defaults={"team": {"monthly_budget_usd": 100}, "project": {"monthly_budget_usd": 10}},
)
POISON: list[bytes | None] = [
    None,
    b"",
    b"\0\0\0\0\1\x04zz",
    b"\0\0\0\0\x63body",
    b"\0\0",
    b"[1, 2]",
    b'"text"',
    b"\xff\xfe\xfd",
    b'{"request_id": "x"}',
    b'{"request_id": "n", "time": 1767571200, "api_key_id": "k", "provider": "p", "model": "m", "input_tokens": -1}',
    b'{"request_id": "a", "time": 1767571200, "api_key_id": "k", "provider": "p", "model": "m", "input_tokens": 1e99}',
    b'{"time": 1767571200, "api_key_id": "k", "provider": "openai", "model": "m"}',
    encode(event(1, START, request_id="")),
    encode(event(1, START, input_tokens=-5)),
    encode(event(1, START, output_tokens=5_000_000_000)),
    encode(event(1, START))[:-9],
]
MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-opus-4-1"), ("google", "gemini-2.5-pro"), ("none", "unheard-of"))


def call(rnd: random.Random, i: int, at: float) -> UsageEvent:
    provider, model = rnd.choice(MODELS)
    read, write, fresh = (rnd.choice((0, rnd.randrange(300_000))) for _ in range(3))
    return event(
        i,
        at,
        source=rnd.choice(("default", "proxy")),
        team=rnd.choice((None, "t1", "t2", "t3")),
        api_key_id=f"k{rnd.randrange(5)}",
        project=rnd.choice((None, "p1", "p2")),
        environment=rnd.choice((None, "prod", "dev")),
        provider=provider,
        model=model,
        input_tokens=read + write + fresh,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=rnd.randrange(9_000),
        cost=rnd.choice((None, None, rnd.randrange(10**9))),
        error_code=rnd.choice((None, None, "429")),
    )


def busy(seed: int, n: int = 250) -> Log:
    """A log with everything in it: duplicates, chains of corrections, poison, any event time."""
    rnd = random.Random(seed)
    log, now = Log(), START + rnd.randrange(40) * DAY_S
    sent: list[UsageEvent] = []
    for i in range(n):
        now += rnd.choice((0, 0.5, 40, 3_000, 20_000))
        kind = rnd.random()
        if kind < 0.1 and sent:
            one = rnd.choice(sent)
        elif kind < 0.2:
            log.raw(rnd.choice(POISON), now)
            continue
        elif kind < 0.35 and sent:
            original = rnd.choice([*sent[-30:], call(rnd, i + 3, now), call(rnd, 10**6 + i, now - 20 * DAY_S)])
            one = replace(call(rnd, i, now), kind="correction", replaces=original, team=original.team)
        else:
            ages = (0, 0, 0, 5, 900, 50_000, 8 * DAY_S, 70 * DAY_S, -300, -3_600)
            one = call(rnd, i, now - rnd.choice(ages))
        if one.replaces is not None and one.replaces.replaces is not None:
            one = replace(one, replaces=replace(one.replaces, kind="final", replaces=None))
        sent.append(one)
        log.raw(encode_usage_json(one) if rnd.random() < 0.3 else encode(one), now)
    log.tick(now)
    return log


def recount(records: Sequence[tuple[int, Record]], blocks: int = 4) -> Recount:
    books, clock = Recount(blocks, ZONE), 0.0
    for offset, record in records:
        clock = max(clock, round(record.at * 1000) / 1000)
        if not any(name == "sb-kind" and kind == b"tick" for name, kind in record.headers):
            books.record(offset, clock, record.value)
    return books


def compare(state: PartitionState, books: Recount) -> None:
    """Compare totals, months, days and hours of every series, and what has no place."""
    table, teams = state.series, state.teams
    rows = {(teams.names[name.team], name.kind, name.name): row for row, name in enumerate(table.names)}
    assert {series: int(table.total[row]) for series, row in rows.items() if table.total[row]} == {
        series: total for series, total in books.totals.items() if total
    }
    today, hour = datetime.fromtimestamp(state.now, ZoneInfo(ZONE)).date(), int(state.now // 3600)
    for series, row in rows.items():
        assert int(table.month[row]) == books.months[series, f"{today:%Y-%m}"], series
        head = int(table.days.head[row])
        for day in range(max(head - 61, 0), head + 1):
            held = int(table.days.span("cost", row, day, day)[0])
            assert held == books.days[series, day_id(day)], (series, day_id(day))
        for back in range(46):
            held = int(table.hours.span("cost", row, hour - back, hour - back)[0])
            assert held == books.hours[series, hour - back], (series, back)
    for row, team in enumerate(teams.names):
        assert int(teams.unplaced[row]) == books.unplaced[team], team


def reasons(records: list[OutRecord]) -> list[tuple[int, str]]:
    """(offset, reason) of dead letters, in order."""
    found = []
    for record in records:
        if record.topic == "usage.dlq.v1":
            headers = dict(record.headers)
            found.append((int(headers["sb-origin"].rsplit(b"/", 1)[1]), headers["sb-reason"].decode()))
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_totals_months_days_and_hours_are_those_of_the_recount(seed: int) -> None:
    log, of = busy(seed), engine(POLICY)
    state = of.new_state(0, 1)
    size = random.Random(seed).choice((1, 9, 250))
    sent = [record for cut in log.every(size) for record in of.step(state, cut).records]
    books = recount(list(enumerate(log.records)))
    compare(state, books)
    assert reasons(sent) == sorted(books.dead)


def test_the_ring_of_fingerprints_forgets_by_whole_blocks() -> None:
    """Offsets are 64 apart, as if most records were of other transactions: 64 records a block, four blocks kept."""
    log, now, a_block = Log(), START, 64
    for i in range(5 * a_block):
        now += 60
        if i in (a_block + 5, 4 * a_block - 1, 4 * a_block + 2):
            log.add(event(7, now), now)  # the first is in block 0: seen until block 4 begins
        elif i == 4 * a_block + 9:
            log.add(event(10**6, now - 20_000), now)  # older than the oldest block: it may have been seen
        else:
            log.add(event(i, now, api_key_id="k"), now)
    of = engine(POLICY)
    state, sent = of.new_state(0, 1), list[OutRecord]()
    for cut in log.every(50):
        sent += of.step(state, replace(cut, apart=64)).records
    books = recount([(64 * i, record) for i, record in enumerate(log.records)])
    compare(state, books)
    assert reasons(sent) == books.dead == [(64 * (4 * a_block + 9), "unplaced_old")]
    assert books.totals["a", "key", "key-1"] == 10_000_000


@pytest.mark.parametrize("poison", POISON)
def test_neighbours_of_poison_are_counted(poison: bytes | None) -> None:
    log = Log()
    for i in range(20):
        log.add(event(i, START + i), START + i)
    log.records[10] = Record(poison, START + 10)
    of = engine(POLICY)
    state = of.new_state(0, 1)
    sent = of.step(state, Cut(log.records, 0)).records
    assert int(state.series.total[0]) == 19 * 10_000_000
    ((offset, _),) = reasons(sent)
    dead = next(record for record in sent if record.topic == "usage.dlq.v1")
    assert (offset, dead.value) == (10, poison)


def test_forged_and_misplaced_internal_records_count_nothing() -> None:
    log = Log()
    value = encode(event(1, START))
    log.raw(value, START, key=b"a", headers=(("sb-kind", b"forward"), ("sb-signature", b"0" * 64)))
    log.raw(value, START, key=b"b", headers=seal("forward", "usage.v1", b"a", value, SECRET))
    log.raw(value, START, key=b"a", headers=seal("forward", "rollups.v1", b"a", value, SECRET))
    log.raw(value, START, headers=(("sb-kind", b"nonsense"),))
    log.raw(b"", START, headers=seal("rollup", "usage.v1", None, b"", SECRET))
    log.add(event(1, START))
    of = engine(POLICY)
    state = of.new_state(0, 1)
    sent = of.step(state, Cut(log.records, 0)).records
    assert [reason for _, reason in reasons(sent)] == ["forged"] * 3 + ["unknown_kind", "unsupported_kind"]
    assert int(state.series.total[0]) == 10_000_000


# --- several partitions ------------------------------------------------------------------------------


class Topic:
    """A usage topic in memory: engines step partitions in turns, forwards go where they are sent."""

    def __init__(self, n: int) -> None:
        self.engines = [engine(POLICY, partitions=n) for _ in range(n)]
        self.states = [of.new_state(number, 1) for number, of in enumerate(self.engines)]
        self.logs: list[list[Record]] = [[] for _ in range(n)]
        self.at = [0] * n
        self.sent: list[OutRecord] = []

    def run(self, rnd: random.Random) -> None:
        while any(at < len(log) for at, log in zip(self.at, self.logs, strict=True)):
            number = rnd.randrange(len(self.logs))
            some = self.logs[number][self.at[number] : self.at[number] + rnd.randrange(1, 40)]
            if some:
                cut = Cut(some, self.at[number], number)
                self.at[number] += len(some)
                self._send(self.engines[number].step(self.states[number], cut).records)

    def _send(self, records: list[OutRecord]) -> None:
        self.sent += records
        for one in records:
            if one.topic == "usage.v1":
                assert one.partition is not None
                log = self.logs[one.partition]
                log.append(Record(one.value, max(one.at, log[-1].at if log else 0.0), one.key, tuple(one.headers)))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_partitioner_each_event_is_counted_once_and_at_home(seed: int) -> None:
    rnd, topic = random.Random(seed), Topic(3)
    now, sent = START, list[UsageEvent]()
    expected: dict[str, int] = defaultdict(int)
    for i in range(300):
        now += rnd.choice((0, 1, 30))
        one = call(rnd, i, now) if i % 10 or not sent else rnd.choice(sent)
        if one not in sent:
            sent.append(one)
        topic.logs[rnd.randrange(3)].append(Record(encode(one), now))
    topic.run(rnd)
    for one in sent:
        expected[one.team or "untagged"] += price_of(one)
    found: dict[str, int] = {}
    for number, state in enumerate(topic.states):
        for row, team in enumerate(state.teams.names):
            assert partition_of(team.encode(), 3) == number
            found[team] = int(state.series.total[state.teams.series[row]])
    assert found == expected


@pytest.mark.parametrize("arrives", ["at its original's", "at its own", "at another team's"])
def test_a_correction_that_moves_a_call_to_a_team_elsewhere_moves_the_money(arrives: str) -> None:
    homes = {name: partition_of(name.encode(), 3) for name in (f"t{i}" for i in range(20))}
    here = "t1"
    there = next(name for name, home in homes.items() if home != homes[here])
    elsewhere = ({0, 1, 2} - {homes[here], homes[there]}).pop()
    topic = Topic(3)
    original = event(1, START, team=here, cost=5 * 10**9)
    moved = event(2, START + 1, team=there, cost=4 * 10**9, kind="correction", replaces=original)
    place = {"at its original's": homes[here], "at its own": homes[there], "at another team's": elsewhere}[arrives]
    topic.logs[elsewhere] = [Record(encode(original), START)]
    topic.run(random.Random(1))
    topic.logs[place] += [Record(encode(moved), START + i) for i in (1, 2)]
    topic.run(random.Random(1))
    totals = {
        team: int(state.series.total[state.teams.series[row]])
        for state in topic.states
        for row, team in enumerate(state.teams.names)
    }
    assert totals == {here: 0, there: 4 * 10**9}


# --- any order of corrections ------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[UsageEvent, int]]:
    """Events and corrections of each other in any order, each once or twice, with sizes of batches between."""
    events = [event(0, START, cost=draw(st.integers(1, 10**9)))]
    for i in range(1, draw(st.integers(1, 5))):
        original = draw(st.sampled_from(events))
        plain = replace(original, kind="final", replaces=None)
        events.append(event(i, START, cost=draw(st.integers(0, 10**9)), kind="correction", replaces=plain))
    shuffled = draw(st.permutations(events + draw(st.lists(st.sampled_from(events), max_size=3))))
    return [(one, draw(st.integers(0, 1))) for one in shuffled]


@settings(max_examples=40, deadline=None)
@given(chains())
def test_corrections_in_any_order_come_to_the_recount(log: list[tuple[UsageEvent, int]]) -> None:
    of = engine(POLICY)
    state, books = of.new_state(0, 1), Recount(4, ZONE)
    sent: list[OutRecord] = []
    batch: list[Record] = []
    for offset, (one, cut) in enumerate(log):
        batch.append(Record(encode(one), START + offset))
        books.record(offset, START + offset, batch[-1].value)
        if cut or offset == len(log) - 1:
            sent += of.step(state, Cut(batch, offset - len(batch) + 1)).records
            batch = []
    compare(state, books)
    assert reasons(sent) == sorted(books.dead)
