"""The rows a partition of parents is kept in: a head and groups of children a parent, and the partition itself.

A parent is copied at one offset, its head first. After a crash children catch up from the log, merging being
idempotent, and nothing is judged anew up to the offset of the head. Sums are derived from children.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.decision import Stamp
from spendbrake.streams.budgets.allocation.approvals import Desk
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.outcome import Row, Unit
from spendbrake.streams.engine.parents.burning import cell_of
from spendbrake.streams.engine.parents.cells import Cells
from spendbrake.streams.engine.parents.hop import wants_at
from spendbrake.streams.engine.parents.state import Child, Line, Parent, ParentsState, Sums, Totals, Untold
from spendbrake.streams.engine.state.codec import BadRow, pack, unpack
from spendbrake.streams.engine.state.rows import MOVED, STANDS_ON, LostState

HEAD, CHILDREN, PARTITION = "head", "children", "partition"
CELL = ("child", "family", "bucket", "amount", "order")


# --- writing -------------------------------------------------------------------------------------


def dirty_parents(state: ParentsState) -> list[str]:
    """Return the parents with anything that is not stored, in order."""
    return sorted(state.dirty_heads | {node for node, parent in state.parents.items() if parent.dirty})


def copy_parents(state: ParentsState, nodes: Sequence[str]) -> list[Unit]:
    """Return what is not stored of parents, a unit each: see `copy_parent`."""
    return [copy_parent(state, node) for node in nodes]


def copy_parent(state: ParentsState, node: str) -> Unit:
    """Return what is not stored of a parent, copied at the offset that is applied; it counts as stored."""
    parent, stamp = state.parents[node], Stamp(epoch=state.epoch, offset=state.applied)
    heads = []
    if node in state.dirty_heads:
        heads.append(Row(f"{HEAD}|{node}", pack(stamp, _head(parent), {})))
        state.dirty_heads.discard(node)
        parent.stored = stamp.offset
    groups = []
    for group in sorted(parent.dirty):
        meta, arrays = _children(parent, parent.members[group])
        if parent.stored >= 0:
            meta[STANDS_ON] = parent.stored
        groups.append(Row(f"{CHILDREN}|{group}|{node}", pack(stamp, meta, arrays)))
    parent.dirty.clear()
    return Unit(tuple(heads), tuple(groups))


def copy_partition(state: ParentsState) -> Row:
    """Return the row of the partition itself: clocks of offsets that may be committed."""
    return Row(PARTITION, pack(Stamp(epoch=state.epoch, offset=state.applied), {"marks": list(state.marks)}, {}))


def _head(parent: Parent) -> dict[str, Any]:
    untold = parent.untold
    return {
        "above": parent.above,
        "listed": parent.listed,
        "calendar": parent.calendar,
        "tiers": parent.tiers.to_state(),
        "ladder": parent.ladder.to_state(),
        "burning": parent.burning,
        "commands": parent.commands,
        "desk": parent.desk.to_state(),
        "due": _finite(parent.due),
        "sent_at": _finite(parent.sent_at),
        "first_days": {key: book.first_day for key, book in parent.totals.books.items()},
        "before": {node: kept.to_state() for node, kept in parent.before.items()},
        "untold": {
            "minutes": sorted(untold.minutes),
            "hours": sorted(untold.hours),
            "days": {key: sorted(days) for key, days in untold.days.items()},
            "months": {key: sorted(months) for key, months in untold.months.items()},
        },
    }


def _finite(at: float) -> float | None:
    return at if np.isfinite(at) else None


def _children(parent: Parent, names: list[str]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return a group of children: who they are, and all their cells in five columns."""
    families: dict[str, int] = {}
    cells: list[tuple[int, int, int, int, int]] = []
    children = []
    for place, name in enumerate(names):
        child = parent.children[name]
        children.append([name, child.order, child.retired, {key: line.closed for key, line in child.lines.items()}])
        for family, held in _families(child):
            number = families.setdefault(family, len(families))
            cells += [(place, number, *cell) for cell in held]
    columns = np.array(cells, np.int64).reshape(-1, len(CELL))
    arrays = {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(CELL)}
    return {"children": children, "families": list(families)}, arrays


def _families(child: Child) -> list[tuple[str, Cells]]:
    lines = [
        (f"{family}|{key}", getattr(line, family))
        for key, line in child.lines.items()
        for family in ("days", "months", "calls", "apart")
    ]
    return [("minutes", child.minutes), ("hours", child.hours), *lines]


# --- reading -------------------------------------------------------------------------------------


def restore(state: ParentsState, rows: Mapping[str, bytes], committed: int | None) -> None:
    """Fill an empty state from its rows, as of what is committed; replaying the log from there completes it.

    Args:
        committed: Next offset that will be read; None = the log begins.

    Raises:
        LostState: the rows are of a later incarnation of the topic, or none tells the clock at the commit.
        BadRow: a row this version cannot read.
    """
    stored = False
    for key, value in sorted(rows.items()):
        stamp, meta, arrays = unpack(value)
        if stamp.epoch > state.epoch:
            raise LostState(f"row {key!r} is of epoch {stamp.epoch}, the topic of epoch {state.epoch}")
        offset = stamp.offset if stamp.epoch == state.epoch else -1
        state.replayed = max(state.replayed, offset)
        kind, _, rest = key.partition("|")
        if kind == PARTITION:
            stored |= offset >= 0
            _load_partition(state, meta, committed, offset)
        elif kind == HEAD:
            _load_head(state, rest, meta, offset)
        elif kind == CHILDREN:
            group, _, node = rest.partition("|")
            _load_children(state.parents.setdefault(node, Parent(node)), int(group), meta, arrays)
        else:
            raise BadRow(f"row of unknown kind: {key!r}")
    if committed is not None and not state.marks:
        if stored:
            raise LostState(f"partition {state.number}: no clock is known for the commit at offset {committed}")
        # No snapshot of the partition yet: the next one may be met by a process that finds no commit either.
        state.marks.append((committed, state.now))
    state.grid = cell_of(state.now) if state.now else -1
    # Everything is stored anew before the next commit: what others wrote, others may still remove.
    state.dirty_heads |= state.parents.keys()
    for parent in state.parents.values():
        parent.dirty |= set(range(len(parent.members)))
        at = wants_at(parent)
        if at < np.inf:
            parent.wakes_at = at
            state.wakes.append((at, parent.id))
    state.wakes.sort()


def _load_partition(state: ParentsState, meta: Mapping[str, Any], committed: int | None, offset: int) -> None:
    """Load the row of one writer: the clock at the commit may be known to any of them."""
    state.emitted = max(state.emitted, offset)
    if (offset < 0 and MOVED not in meta) or committed is None:
        return
    for at, now in meta["marks"]:
        if at == committed and not state.marks:
            state.applied, state.now = committed - 1, now
            state.marks.append((at, now))


def _load_head(state: ParentsState, node: str, meta: Mapping[str, Any], offset: int) -> None:
    parent = state.parents.setdefault(node, Parent(node))
    parent.above, parent.listed, parent.calendar = meta["above"], meta["listed"], meta["calendar"]
    parent.tiers = NodeTiers.from_state(meta["tiers"])
    parent.ladder = LadderState.from_state(meta["ladder"])
    parent.burning = dict(meta.get("burning", {}))  # rows before 0.1 had none
    parent.commands = dict(meta["commands"])
    parent.desk = Desk.from_state(meta["desk"])
    parent.due = np.inf if meta["due"] is None else meta["due"]
    parent.sent_at = -np.inf if meta["sent_at"] is None else meta["sent_at"]
    parent.judged = offset
    for key, first in meta["first_days"].items():
        parent.totals.book(key).first_day = first
    parent.before = {former: Totals.from_state(kept) for former, kept in meta["before"].items()}
    untold = meta["untold"]
    parent.untold = Untold(
        set(untold["minutes"]),
        set(untold["hours"]),
        {key: set(days) for key, days in untold["days"].items()},
        {key: set(months) for key, months in untold["months"].items()},
    )


def _load_children(parent: Parent, group: int, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    children = []
    for name, order, retired, closed in meta["children"]:
        child = parent.add(name, group)
        child.order, child.retired = order, retired
        for key, amount in closed.items():
            child.lines[key] = Line(closed=amount)
            parent.totals.book(key).closed += amount
        children.append(child)
    columns = [arrays[name].tolist() for name in CELL]
    for place, number, bucket, amount, order in zip(*columns, strict=True):
        family, _, key = meta["families"][number].partition("|")
        cells, sums = _where(parent, children[place], family, key)
        sums[bucket] += cells.put(bucket, amount, order)


def _where(parent: Parent, child: Child, family: str, key: str) -> tuple[Cells, Sums]:
    owner: Any = child.lines[key] if key else child
    sums: Any = parent.totals.book(key) if key else parent.totals
    cells, amounts = getattr(owner, family), getattr(sums, family)
    return cells, amounts
