"""Merging is idempotent and free of order: what counts is the stamp."""

import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from enginelog import Cut
from rollupslog import START, engine, record, tree
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.streams.engine.parents.state import Parent, ParentsState

OF = engine(tree(("acme", "organization", None, 50)))
MINUTE, HOUR = int(START // 60), int(START // 3600)
amounts = st.integers(-(10**12), 10**12)


@st.composite
def told(draw: st.DrawFn) -> Rollup:
    child = ChildTotals(
        child=draw(st.sampled_from("abc")),
        stamp=Stamp(epoch=draw(st.integers(1, 2)), offset=draw(st.integers(0, 30))),
        periods=draw(st.dictionaries(st.sampled_from(["2025-11", "2025-12", "2026-01"]), amounts)),
        days=draw(st.dictionaries(st.sampled_from(["2025-12-31", "2026-01-04", "2026-01-05"]), amounts)),
        hours=draw(st.dictionaries(st.integers(HOUR - 40, HOUR), amounts, max_size=3)),
        minutes=draw(st.dictionaries(st.integers(MINUTE - 100, MINUTE), amounts, max_size=3)),
        calls=draw(st.dictionaries(st.sampled_from(["2026-01"]), st.integers(0, 10**6))),
    )
    calendar = draw(st.sampled_from(["UTC/1", "Asia/Tokyo/1"]))
    return Rollup(parent="acme", calendar=calendar, now=START, children=(child,))


def distinct(rollups: list[Rollup]) -> list[Rollup]:
    """One a child and stamp: a stamp is one state of its log."""
    kept = {(r.children[0].child, r.children[0].stamp): r for r in rollups}
    return list(kept.values())


def sums(state: ParentsState) -> dict[object, int]:
    found: dict[object, int] = defaultdict(int)
    parent: Parent = state.parents["acme"]
    for kind in ("minutes", "hours"):
        found |= {(kind, bucket): n for bucket, n in getattr(parent.totals, kind).items() if n}
    for key, book in parent.totals.books.items():
        for kind in ("months", "days", "calls"):
            found |= {(key, kind, bucket): n for bucket, n in getattr(book, kind).items() if n}
    return dict(found)


def brute(rollups: list[Rollup]) -> dict[object, int]:
    """For each cell of each child what the latest stamp says, summed."""
    latest: dict[object, tuple[Stamp, int]] = {}
    for rollup in sorted(rollups, key=lambda r: (r.children[0].stamp.epoch, r.children[0].stamp.offset)):
        child = rollup.children[0]
        for kind, where, cells in (
            ("minutes", (), child.minutes),
            ("hours", (), child.hours),
            ("months", (rollup.calendar,), child.periods),
            ("days", (rollup.calendar,), child.days),
            ("calls", (rollup.calendar,), child.calls),
        ):
            for bucket, amount in cells.items():
                latest[child.child, where, kind, number(kind, bucket)] = (child.stamp, amount)
    found: dict[object, int] = defaultdict(int)
    for (_, where, kind, bucket), (_, amount) in latest.items():  # type: ignore[misc]
        found[(*where, kind, bucket)] += amount
    return {cell: n for cell, n in found.items() if n}


def number(kind: str, bucket: int | str) -> int:
    if kind in ("months", "calls"):
        year, month = str(bucket).split("-")
        return int(year) * 12 + int(month) - 1
    if kind == "days":
        return {"2025-12-31": 20_453, "2026-01-04": 20_457, "2026-01-05": 20_458}[str(bucket)]
    return int(bucket)


@settings(max_examples=60, deadline=None)
@given(st.lists(told(), min_size=1, max_size=25).map(distinct), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(rollups: list[Rollup], rnd: random.Random) -> None:
    want = brute(rollups)
    for _ in range(2):
        shuffled = rollups + rnd.sample(rollups, rnd.randrange(len(rollups) + 1))
        rnd.shuffle(shuffled)
        of = OF
        state = of.new_state(0, 1)
        of.step(state, Cut([record(r) for r in shuffled], 0, 0, "rollups.v1"))
        assert sums(state) == want


def test_months_left_behind_are_closed_and_kept() -> None:
    of = OF
    state = of.new_state(0, 1)
    months = [("2026-01", START), ("2026-05", START + 120 * 86_400)]
    for offset, (month, now) in enumerate(months):
        child = ChildTotals(child="a", stamp=Stamp(epoch=1, offset=offset), periods={month: 5 + offset})
        rollup = Rollup(parent="acme", calendar="UTC/1", now=now, children=(child,))
        of.step(state, Cut([record(rollup)], offset, 0, "rollups.v1"))
    book = state.parents["acme"].totals.book("UTC/1")
    assert (book.closed, dict(book.months)) == (5, {2026 * 12 + 4: 6})
    old = ChildTotals(child="a", stamp=Stamp(epoch=1, offset=9), periods={"2026-01": 99})
    of.step(state, Cut([record(Rollup(parent="acme", calendar="UTC/1", now=now, children=(old,)))], 2, 0, "rollups.v1"))
    assert (book.closed, dict(book.months)) == (5, {2026 * 12 + 4: 6})
