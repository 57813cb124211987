"""The same log gives the same findings, actions, ids, forwards, dead letters and amounts, however it is worked off."""

import random
from collections.abc import Sequence
from functools import cache

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enginelog import Cut, Merged, Record, books
from property.eventful import PARTITIONS, eventful, new_engine
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from unit.engine.test_restart import Disk, Worker

SEEDS = st.integers(0, 5)
"""Of logs: each is made once."""
CHANCE = st.integers(0, 2**32)
N = 320

Told = set[tuple[str, bytes | None, bytes | None, int | None]]


def told(records: Sequence[OutRecord]) -> Told:
    """What was sent, without repetitions; rollups apart: they tell of states (see Merged)."""
    return {(r.topic, r.key, r.value, r.partition) for r in records if r.topic != "rollups.v1"}


def played(log: Sequence[Record], number: int, cuts: Sequence[int]) -> tuple[PartitionState, list[OutRecord]]:
    of = new_engine()
    state = of.new_state(number, 1)
    sent: list[OutRecord] = []
    for first, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        if end > first:
            sent += of.step(state, Cut(log[first:end], first, number)).records
    return state, sent + of.flush(state)


@cache
def expected(seed: int, number: int) -> tuple[list[Record], object, Told, Merged]:
    log = eventful(seed, N)[number]
    state, sent = played(log, number, range(97, len(log), 97))
    return log, books(state), told(sent), Merged(sent)


def test_the_log_has_everything_in_it() -> None:
    found: set[str] = set()
    for number in range(PARTITIONS):
        _, _, sent, _ = expected(0, number)
        found |= {topic for topic, *_ in sent}
        findings = [decode(Finding, value) for topic, _, value, _ in sent if topic == "findings.v1" and value]
        found |= {finding.family for finding in findings}
        found |= {f"tier of {finding.period}" for finding in findings if finding.tier}
    assert found >= {"usage.v1", "usage.dlq.v1", "actions.v1", "new", "tier of 2026-01", "tier of 2026-02"}


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS, number=st.integers(0, PARTITIONS - 1), chance=CHANCE)
def test_where_a_log_is_cut_into_batches_changes_nothing(seed: int, number: int, chance: int) -> None:
    log, amounts, records, merged = expected(seed, number)
    rnd = random.Random(chance)
    cuts = sorted(rnd.sample(range(1, len(log)), rnd.choice((3, 20, len(log) // 2))))
    state, sent = played(log, number, cuts)
    assert books(state) == amounts
    assert told(sent) == records
    assert Merged(sent) == merged


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS, number=st.integers(0, PARTITIONS - 1), chance=CHANCE)
@example(seed=3, number=0, chance=3)
def test_where_workers_die_changes_nothing(seed: int, number: int, chance: int) -> None:
    log, amounts, records, merged = expected(seed, number)
    rnd, disk = random.Random(chance), Disk()
    sent: list[OutRecord] = []
    worker = Worker(log, disk, rnd, sent, new_engine, number)
    while worker.at < len(log):
        worker.step()
        stores = rnd.random() < 0.3 and worker.at < len(log)
        if stores and (any(rnd.random() < 0.05 for _ in worker.snapshot()) or rnd.random() < 0.2):
            worker = Worker(log, disk, rnd, sent, new_engine, number)
    assert books(worker.state) == amounts
    assert told(sent) == records
    assert Merged(sent) == merged


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS, number=st.integers(0, PARTITIONS - 1), chance=CHANCE)
def test_what_is_delivered_twice_counts_once(seed: int, number: int, chance: int) -> None:
    """Copies shift offsets, and with them the ids of incidents: amounts and budgets are compared."""
    log, amounts, records, _ = expected(seed, number)
    rnd = random.Random(chance)
    copied: list[Record] = []
    for place, record in enumerate(log):
        copied.append(record)
        if rnd.random() < 0.2:
            earlier = log[rnd.randrange(max(0, place - 50), place + 1)]
            copied.append(Record(earlier.value, record.at, earlier.key, earlier.headers))
    state, sent = played(copied, number, range(61, len(copied), 61))
    assert books(state) == amounts
    assert budgets(told(sent)) == budgets(records)


def budgets(sent: Told) -> set[tuple[str, float]]:
    found = [decode(Finding, value) for topic, _, value, _ in sent if topic == "findings.v1" and value]
    return {(finding.id, finding.time) for finding in found if finding.tier}
