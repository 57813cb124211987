"""Teams that move in the tree: each parent keeps what was spent below it, and the root counts it once."""

import random
from collections import defaultdict
from typing import Any

import pytest

from enginelog import START, Cut, Log, engine, event, versions
from rollupslog import as_record
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.cells import month_number
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.parents.step import ParentsEngine

HOUR_S, DAY_S = 3_600.0, 86_400.0
SEARCH, OPS = "search", "ops"


def tree(search: str | None, zone: str = "UTC") -> dict[str, Any]:
    """Two groups below one organization; team `search` hangs below one of them, `ops` always below `east`."""
    nodes = [
        {"id": "acme", "level": "organization"},
        {"id": "east", "level": "billing_group", "parent": "acme", "calendar": {"timezone": zone}},
        {"id": "west", "level": "billing_group", "parent": "acme"},
        {"id": OPS, "level": "team", "parent": "east"},
    ]
    if search is not None:
        nodes.append({"id": SEARCH, "level": "team", "parent": search})
    return {
        "levels": ["organization", "billing_group", "team", "project", "key"],
        "nodes": nodes,
        "defaults": {"team": {"parent": "acme"}},
        "detection": {"enabled": False},
    }


MOVES = [
    (0.0, tree("east")),
    (START + DAY_S, tree("west")),
    (START + 2 * DAY_S, tree("east")),
    (START + 3 * DAY_S, tree(None)),
]
"""There, away, back again, and out of the tree: then below the organization itself, as teams are that nobody lists."""


def at(now: float) -> str:
    """Return where `search` hangs."""
    place = sum(now >= begin for begin, _ in MOVES[1:])
    return ("east", "west", "east", "acme")[place]


def log_of(seed: int, n: int = 250) -> tuple[Log, dict[str, int]]:
    """Four days of two teams, some of it late by a day; what each node ought to have been told."""
    rnd, log, expected = random.Random(seed), Log(), defaultdict[str, int](int)
    now = START
    for i in range(n):
        now += rnd.random() * 8 * DAY_S / n
        team, cost = rnd.choice((SEARCH, SEARCH, OPS)), rnd.randrange(1, 10**9)
        log.add(event(i, now - rnd.choice((0, 0, 30, HOUR_S, DAY_S)), team=team, cost=cost), now)
        below = at(now) if team == SEARCH else "east"
        expected[below] += cost
        expected["acme"] += cost * (below != "acme")
    log.tick(now + 60)
    return log, dict(expected)


def above(sent: list[OutRecord]) -> ParentsState:
    """Step the engine of parents over what the teams have told; what parents tell each other comes back in."""
    of = ParentsEngine(engine(versions=versions(*MOVES)).book, 1, (b"secret of the tests",))
    state, at = of.new_state(0, 1), 0
    waiting = [as_record(record) for record in sent if record.topic == "rollups.v1"]
    while waiting:
        cut, waiting, at = Cut(waiting, at, 0, "rollups.v1"), [], at + len(waiting)
        waiting = [as_record(r) for r in of.step(state, cut).records if r.topic == "rollups.v1"]
    return state


def month(state: ParentsState, node: str) -> int:
    return state.parents[node].totals.book("UTC/1").months[month_number("2026-01")]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_each_parent_has_what_was_spent_below_it(size: int) -> None:
    log, expected = log_of(seed=5)
    of = engine(versions=versions(*MOVES))
    state = of.new_state(0, 1)
    sent = [record for cut in log.every(size) for record in of.step(state, cut).records] + of.flush(state)
    found = above(sent)
    assert {node: month(found, node) for node in ("east", "west", "acme")} == expected
    assert found.parents["east"].children[SEARCH].retired
    assert found.parents["west"].children[SEARCH].retired
    assert not found.parents["acme"].children[SEARCH].retired
    days = found.parents["west"].totals.book("UTC/1").days
    assert sum(days.values()) == expected["west"]


def test_a_move_is_told_once_and_nothing_of_who_stays() -> None:
    log, _ = log_of(seed=6)
    of = engine(versions=versions(*MOVES))
    state = of.new_state(0, 1)
    sent = [record for cut in log.every(13) for record in of.step(state, cut).records]
    told = [decode(Rollup, record.value or b"") for record in sent if record.topic == "rollups.v1"]
    retired = [(rollup.parent, child.child) for rollup in told for child in rollup.children if child.retired]
    assert retired == [("east", SEARCH), ("west", SEARCH), ("east", SEARCH)]
