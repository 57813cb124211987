"""A record in another partition than its team's: sent home once, resolved where it was first read."""

import pytest

from enginelog import SECRET, START, Cut, Log, Record, engine, event
from spendbrake.schemas.control import Owner, OwnersVersion
from spendbrake.schemas.wire.envelope import kind_of, open_internal, origin_of
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.step import Engine

HOMES = {name: partition_of(name.encode(), 2) for name in (f"t{i}" for i in range(20))}
HERE = next(name for name, home in HOMES.items() if home == 0)
THERE = next(name for name, home in HOMES.items() if home == 1)
OWNERS = [OwnersVersion(version=1, valid_from=0.0, published_at=0.0, owners=(Owner(key="key-1", team=THERE),))]


def stepped(of: Engine, records: list[Record], partition: int) -> tuple[PartitionState, list[OutRecord]]:
    state = of.new_state(partition, 1)
    return state, [out for out in of.step(state, Cut(records, 0, partition)).records if out.topic == "usage.v1"]


def spent(state: PartitionState) -> dict[str, int]:
    return {team: int(state.series.total[state.teams.series[row]]) for row, team in enumerate(state.teams.names)}


def forwarded(n: int = 1) -> list[OutRecord]:
    """What partition 0 forwards of events that say they are of a team there, and whose key is of one elsewhere."""
    log = Log()
    for i in range(n):
        log.add(event(i, START + i, team=HERE))
    state, sent = stepped(engine(partitions=2, owners=OWNERS), log.records, 0)
    assert spent(state) == {}
    return sent


def test_a_forward_counts_for_the_team_it_was_resolved_to() -> None:
    (out,) = forwarded()
    assert (out.partition, out.key) == (1, THERE.encode())
    arrived = [Record(out.value, out.at, out.key, tuple(out.headers))]
    # Whoever reads it may know no owners yet, or later ones.
    state, sent = stepped(engine(partitions=2), arrived, 1)
    assert spent(state) == {THERE: 10_000_000}
    assert sent == []


def test_a_forward_is_signed_and_says_where_it_comes_from() -> None:
    (out,) = forwarded()
    assert kind_of(out.headers) == "forward"
    open_internal("forward", "usage.v1", out.key, out.value, out.headers, [SECRET])
    assert origin_of(out.headers) == "usage.v1/0/0"


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_forward_that_a_crash_repeats_counts_once(size: int) -> None:
    sent = forwarded(5)
    arrived = [Record(out.value, out.at, out.key, tuple(out.headers)) for out in [*sent[:3], *sent, *sent[2:]]]
    of = engine(partitions=2)
    state = of.new_state(1, 1)
    for first in range(0, len(arrived), size):
        of.step(state, Cut(arrived[first : first + size], first, 1))
    assert spent(state) == {THERE: 5 * 10_000_000}
