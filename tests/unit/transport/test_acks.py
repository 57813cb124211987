"""In-flight chunks: the acknowledged prefix, generations, and when reading pauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.transport.acks import InFlight, Limits

TP = ("usage.v1", 0)
OTHER = ("usage.v1", 1)


def deliver(flights: InFlight, *spans: tuple[int, int], at: float = 0.0, tp: tuple[str, int] = TP) -> None:
    for first, last in spans:
        flights.delivered(tp, first, last, generation=1, at=at)


def test_a_range_acknowledges_the_chunks_wholly_inside_it() -> None:
    flights = InFlight()
    deliver(flights, (0, 9), (10, 19), (20, 29))
    flights.ack(TP, 0, 25, generation=1)
    assert flights.committable(TP) == 20
    assert flights.offsets() == 10


def test_what_was_committable_stays_so() -> None:
    flights = InFlight()
    deliver(flights, (0, 9))
    assert flights.committable(TP) is None
    flights.ack(TP, 0, 9, generation=1)
    assert [flights.committable(TP), flights.committable(TP)] == [10, 10]


def test_a_new_generation_starts_with_nothing_in_flight() -> None:
    flights = InFlight()
    deliver(flights, (0, 9), (10, 19))
    flights.delivered(TP, 0, 4, generation=2, at=0.0)
    assert flights.offsets() == 5
    assert flights.ack(TP, 0, 19, generation=1) is False
    assert flights.committable(TP) is None
    assert flights.stale == 1


def test_acknowledging_a_partition_that_was_given_up_changes_nothing() -> None:
    flights = InFlight()
    deliver(flights, (0, 9))
    flights.forget([TP])
    assert flights.ack(TP, 0, 9, generation=1) is True
    assert (flights.committable(TP), flights.offsets(), flights.partitions()) == (None, 0, [])


def test_too_many_offsets_in_all_pause_every_partition_in_flight() -> None:
    flights = InFlight(Limits(offsets=20))
    deliver(flights, (0, 14))
    assert flights.paused(0.0) == set()
    deliver(flights, (0, 4), tp=OTHER)
    assert flights.paused(0.0) == {TP, OTHER}
    flights.ack(OTHER, 0, 4, generation=1)
    flights.committable(OTHER)
    assert flights.paused(0.0) == set()


def test_in_flight_is_as_full_as_its_fullest_partition_is_past_its_commit() -> None:
    flights = InFlight(Limits(offsets=100, lookback=20))
    deliver(flights, (0, 9))
    deliver(flights, (0, 18), tp=OTHER)
    assert flights.filled() == 0.95
    flights.ack(OTHER, 0, 18, generation=1)
    assert flights.committable(OTHER) == 19
    assert flights.filled() == 0.95
    flights.committed(OTHER, 19)
    assert flights.filled() == 0.5
    deliver(flights, (10, 59))
    assert flights.filled() == 3.0


@pytest.mark.parametrize(("now", "paused"), [(159.9, set()), (160.0, {TP})])
def test_a_chunk_unacknowledged_for_too_long_pauses_its_partition(now: float, paused: set[tuple[str, int]]) -> None:
    flights = InFlight(Limits(age_s=60.0))
    deliver(flights, (0, 9), at=100.0)
    deliver(flights, (0, 9), at=150.0, tp=OTHER)
    assert flights.paused(now) == paused


def test_a_partition_is_read_no_further_past_its_commit_than_a_restart_can_look_back() -> None:
    flights = InFlight(Limits(lookback=30))
    deliver(flights, (100, 119), (120, 128))
    deliver(flights, (0, 9), tp=OTHER)
    assert flights.paused(0.0) == set()
    deliver(flights, (129, 129))
    assert flights.paused(0.0) == {TP}
    flights.ack(TP, 100, 119, generation=1)
    assert flights.committable(TP) == 120
    assert flights.paused(0.0) == {TP}, "acknowledged here, but who restarts would begin at 100"
    flights.committed(TP, 120)
    assert flights.paused(0.0) == set()


@given(
    widths=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=12),
    acks=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12),
)
def test_the_commit_is_the_end_of_the_acknowledged_prefix(
    widths: list[tuple[int, int]], acks: list[tuple[int, int]]
) -> None:
    flights, spans, at = InFlight(), [], 0
    for gap, width in widths:
        spans.append((at + gap, at + gap + width - 1))
        at += gap + width
    deliver(flights, *spans)
    acked: set[tuple[int, int]] = set()
    for first, last in acks:
        flights.ack(TP, first, last, generation=1)
        acked |= {span for span in spans if first <= span[0] and span[1] <= last}
        expected = None
        for span in spans:
            if span not in acked:
                break
            expected = span[1] + 1
        assert flights.committable(TP) == expected
        left = spans if expected is None else [span for span in spans if span[0] >= expected]
        assert flights.offsets() == sum(last + 1 - first for first, last in left)
