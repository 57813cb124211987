"""A step with pauses in it: others run meanwhile, and nobody ever meets the state in the midst of it."""

import asyncio
from pathlib import Path

import pytest

from enginelog import START, Log, books, engine, event, play
from scripted.cluster import TREE, Cluster, Process
from spendbrake.streams.engine.segment import JUDGED_AT_ONCE
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import NO_BUCKET

TEAMS = 200
WATCHED = TREE | {"detection": {"enabled": True}}


def panels(state: PartitionState) -> dict[int, bytes | None]:
    return {team: head.panel.dump() if head.panel is not None else None for team, head in state.heads.items()}


@pytest.fixture
async def process(tmp_path: Path) -> Process:
    """A worker that has taken calls of many teams; the next record is a tick at which all their buckets close."""
    log = Log()
    for i in range(TEAMS):
        log.add(event(i, START, team=f"team-{i}"))
    log.tick(START + 120.0)
    process = await Cluster(log.records, lambda: engine(WATCHED), tmp_path).start()
    await process.feed(TEAMS)
    return process


async def test_others_run_while_a_long_step_goes_on(process: Process) -> None:
    stepping, turns = asyncio.ensure_future(process.feed(1)), 0
    while not stepping.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > TEAMS // JUDGED_AT_ONCE


async def test_nobody_may_copy_the_state_in_the_midst_of_a_step(process: Process) -> None:
    stepping = asyncio.ensure_future(process.feed(1))
    await asyncio.sleep(0)
    assert process.state.applied == TEAMS - 1, "it is in the midst"
    assert process.worker.journal.owned[0].gate.locked()
    await stepping


async def test_a_step_whose_agent_is_cancelled_is_gone_through_to_its_end(process: Process) -> None:
    stepping = asyncio.ensure_future(process.feed(1))
    await asyncio.sleep(0)
    stepping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stepping
    assert process.state.applied == process.worker.journal.owned[0].last == TEAMS
    assert (process.state.teams.open[:TEAMS] == NO_BUCKET).all(), "every bucket is closed"
    whole, _ = play(Log(process.cluster.log).every(50), engine(WATCHED))
    assert books(process.state) == books(whole)
    assert panels(process.state) == panels(whole)


async def test_others_run_while_a_day_begins_for_all_nodes(process: Process) -> None:
    await process.feed(1)
    midnight = Log()
    midnight.tick(START + 86_400.0)
    process.cluster.log += midnight.records
    stepping, turns = asyncio.ensure_future(process.feed(1)), 0
    while not stepping.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > TEAMS
