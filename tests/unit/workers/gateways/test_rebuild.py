"""What a worker tells gateways that have lost everything, when, and when it may say that all chains are told."""

from pathlib import Path

import pytest

from enginelog import SECRET, START, Log, engine, event
from scripted.cluster import TREE, Cluster, Process
from spendbrake.actions.gateway.contract import UNCOUNTED_S
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS, STANDING
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.chains import CHAIN, MARK
from spendbrake.streams.workers.burn import SHARES
from spendbrake.streams.workers.partitions.stepper import REBUILT_WITHIN_S
from spendbrake.streams.workers.partitions.ticker import WAITING_S, Ticker

TEAMS = 15


@pytest.fixture
async def process(tmp_path: Path) -> Process:
    """A worker that has taken one call of each team, a second apart."""
    log = Log()
    for i in range(TEAMS):
        log.add(event(i, START + i, team=f"team-{i}"))
    now = START + TEAMS - 1
    for wait in (1.0, UNCOUNTED_S, 1.0, REBUILT_WITHIN_S):
        log.tick(now := now + wait)
    process = await Cluster(log.records, lambda: engine(TREE), tmp_path).start()
    await process.feed(TEAMS)
    return process


def told(process: Process) -> list[Action]:
    """Return what was told since the last time it was asked."""
    ours = [record for record in process.cluster.sent if record.topic in (ACTIONS.name, STANDING.name)]
    actions = [decode(Action, record.value or b"") for record in ours]
    process.cluster.sent.clear()
    return actions


def keys(actions: list[Action]) -> set[str]:
    return {action.params["team"] for action in actions if action.effect == CHAIN and action.params["key"]}


def mark(actions: list[Action]) -> tuple[float, float | None]:
    (mark,) = [action for action in actions if action.effect == MARK]
    return mark.time, mark.params["chains_at"]


async def test_all_is_told_once_the_log_has_reached_the_loss_and_again_once_it_counts_what_was_under_way(
    process: Process,
) -> None:
    worker, since = process.worker, process.state.now + 0.5
    told(process)
    await worker.rebuild(since)
    assert told(process) == [], "the state may be of before the loss"
    await process.feed(1)
    told(process)
    await worker.rebuild(since)
    actions = told(process)
    assert keys(actions) == {f"team-{i}" for i in range(TEAMS)}
    assert mark(actions) == (process.state.now, process.state.now)
    await worker.rebuild(since)
    assert told(process) == [], "once"
    await process.feed(1)
    await worker.rebuild(since)
    told(process)
    await process.feed(1)
    told(process)
    await worker.rebuild(since)
    assert told(process) == [], "the second time was due with the record before"


async def test_an_idle_partition_is_given_the_time_until_it_has_told_the_second_time_and_no_longer(
    process: Process,
) -> None:
    worker, since, at = process.worker, process.state.now + 0.5, [100.0]
    (owned,) = worker.journal.owned.values()
    ticker, ticked = Ticker(SECRET, lambda: at[0]), []
    for _ in range(3):
        owned.wants_tick = False  # as after a step: nothing in the state waits for the clock
        await worker.rebuild(since)
        ticker.stirred(owned)
        at[0] += WAITING_S
        ticked.append(len(ticker.due(worker.journal)))
        await process.feed(1)
    assert ticked == [1, 1, 0]


async def test_the_second_time_is_when_caps_count_what_was_settled_before(process: Process) -> None:
    worker, since = process.worker, process.state.now + 0.5
    await process.feed(1)
    await worker.rebuild(since)
    await process.feed(1)
    assert process.state.now >= since + UNCOUNTED_S
    told(process)
    await worker.rebuild(since)
    assert mark(told(process))[0] >= since + UNCOUNTED_S


async def test_a_loss_of_long_ago_is_no_business_of_who_takes_over(process: Process) -> None:
    since = process.state.now
    await process.feed(4)
    told(process)
    await process.worker.rebuild(since)
    assert told(process) == []


async def test_all_chains_are_told_since_the_first_of_as_many_passes_as_they_are_spread_over(process: Process) -> None:
    began, seen = process.state.now, set()
    for turn in range(1, SHARES + 1):
        told(process)
        await process.worker.republish()
        actions = told(process)
        seen |= keys(actions)
        assert mark(actions)[1] == (began if turn == SHARES else None)
        if turn == 1:
            await process.feed(1)
    assert seen == {f"team-{i}" for i in range(TEAMS)}
    await process.worker.republish()
    assert mark(told(process))[1] == process.state.now > began
