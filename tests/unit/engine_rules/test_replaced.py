"""Corrections at the edge of what is remembered."""

from dataclasses import replace

import pytest

from enginelog import START, Cut, Log, engine, event

USD = 10**9
APART = 1_024
"""Offsets between two records, as if most were of other transactions: four records a block of fingerprints."""


def correction(number: int, of: int, at: float, now: float) -> Log:
    """A log of twenty events, one a minute, in which `number` then replaces `of`."""
    log = Log()
    for i in range(20):
        log.add(event(i, START + 60 * i, cost=USD))
    original = event(of, at, cost=USD)
    log.add(event(number, now, cost=3 * USD, kind="correction", replaces=original), now)
    return log


@pytest.mark.parametrize("size", [1, 100])
def test_a_correction_of_what_may_have_been_forgotten_is_unmatched(size: int) -> None:
    log = correction(1_000, 2, START + 120, START + 1_200)
    of = engine(blocks=4)
    state = of.new_state(0, 1)
    sent = [out for cut in log.every(size) for out in of.step(state, replace(cut, apart=APART)).records]
    (dead,) = (out for out in sent if out.topic == "usage.dlq.v1")
    assert dict(dead.headers)["sb-reason"] == b"unmatched"
    assert int(state.series.total[0]) == 20 * USD


def test_a_correction_of_what_is_remembered_moves_the_difference() -> None:
    log = correction(1_000, 18, START + 18 * 60, START + 1_200)
    of = engine(blocks=4)
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0, apart=APART))
    assert int(state.series.total[0]) == 22 * USD


def test_an_original_still_to_come_is_dropped_when_it_comes() -> None:
    log = correction(1_000, 500, START + 1_190, START + 1_200)
    log.add(event(500, START + 1_190, cost=USD), START + 1_201)
    of = engine(blocks=4)
    state = of.new_state(0, 1)
    for cut in log.every(1):
        of.step(state, replace(cut, apart=APART))
    assert int(state.series.total[0]) == 23 * USD
