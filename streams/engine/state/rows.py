"""The rows a partition is kept in: heads, groups of series, blocks of fingerprints, the partition itself.

A team is copied at one offset. Its head goes first: after a crash series catch up, and nothing is judged anew up to
the offset of the head. What could be derived is not stored.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spendbrake.actions.policies.state import LadderState
from spendbrake.detectors.memory.votes import Votes
from spendbrake.schemas.decision import Stamp
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.outcome import Row, Unit
from spendbrake.streams.engine.parents.state import Totals
from spendbrake.streams.engine.state.codec import BadRow, pack, unpack
from spendbrake.streams.engine.state.fingerprints import BLOCK, BlockRow
from spendbrake.streams.engine.state.partition import GRID_S, Head, KeyChain, PartitionState
from spendbrake.streams.engine.state.records import I64, gather, scatter, series_columns, team_columns
from spendbrake.streams.engine.state.series import GROUP

HEAD, SERIES, BLOCKS, PARTITION = "head", "series", "block", "partition"
MOVED = "moved"
"""In the meta of a partition's row: the clock is that of the log this one goes on from (`spendbrake rehome`)."""
STANDS_ON = "head"
"""Of a row beside a head: the offset at which its writer stored that; it has not changed since. See `choose`."""
HOUR_S = 3600


class LostState(RuntimeError):
    """Stored rows do not fit the log: going on would lose or double money."""


# --- writing -------------------------------------------------------------------------------------


def dirty_teams(state: PartitionState) -> list[int]:
    """Return the teams with anything that is not stored, in order; they count as stored from here on."""
    n = len(state.series)
    teams = np.unique(state.series.team[:n][state.series.dirty[:n]])
    return sorted({*teams.tolist(), *state.dirty_heads})


def copy_team(state: PartitionState, team: int) -> Unit:
    """Return what is not stored of one team: see `copy_teams`."""
    return copy_teams(state, [team])[0]


def copy_teams(state: PartitionState, teams: Sequence[int]) -> list[Unit]:
    """Return what is not stored of teams, a unit each, copied at the offset that is applied; it counts as stored."""
    stamp = Stamp(epoch=state.epoch, offset=state.applied)
    floor = state.teams.closable(state.now, every := np.array(teams, np.int64))
    heads = [_copy_head(state, team, at, stamp) for team, at in zip(teams, floor.tolist(), strict=True)]
    return [Unit(*rows) for rows in zip(heads, _copy_series(state, every, floor, stamp), strict=True)]


def _copy_head(state: PartitionState, team: int, floor: int, stamp: Stamp) -> tuple[Row, ...]:
    if team not in state.dirty_heads:
        return ()
    state.dirty_heads.discard(team)
    state.teams.stored[team] = stamp.offset
    row = pack(stamp, _head(state, team, floor), _panel(state.heads[team]))
    return (Row(f"{HEAD}|{state.teams.names[team]}", row),)


def _copy_series(state: PartitionState, teams: I64, floor: I64, stamp: Stamp) -> list[tuple[Row, ...]]:
    """Return the rows of each team's groups of series that are not stored; the first group has the team itself."""
    table, units, at = state.series, [list[Row]() for _ in teams], 0
    groups = [
        (unit, begin, own[begin : begin + GROUP])
        for unit, own in enumerate(table.of_team[team] for team in teams.tolist())
        for begin in range(0, len(own), GROUP)
    ]
    rows = np.array([row for _, _, some in groups for row in some], np.int64)
    series, whole = gather(series_columns(state), rows), gather(team_columns(state), teams)
    calls, dirty = state.calls.copy(teams, floor), table.dirty[rows]
    table.dirty[rows] = False
    for unit, begin, some in groups:
        end = at + len(some)
        if dirty[at:end].any():
            meta: dict[str, Any] = {"names": [(*table.names[row].label, table.node[row]) for row in some]}
            if state.teams.stored[teams[unit]] >= 0:
                meta[STANDS_ON] = int(state.teams.stored[teams[unit]])
            arrays: dict[str, np.ndarray[Any, Any]] = {"series": series[at:end]}
            if begin == 0:
                meta |= {"hour": state.hour, "floor": int(floor[unit])}
                arrays |= {"team": whole[unit : unit + 1], "calls": calls[unit]}
            name = state.teams.names[teams[unit]]
            units[unit].append(Row(f"{SERIES}|{begin // GROUP}|{name}", pack(stamp, meta, arrays)))
        at = end
    return [tuple(unit) for unit in units]


def copy_blocks(state: PartitionState) -> list[Row]:
    """Return the blocks of fingerprints that are not stored; they count as stored."""
    rows = []
    for number in sorted(state.fingerprints.dirty):
        block = state.fingerprints.row(number)
        if block is not None:
            meta = {"number": number, "at": block.at, "since": _known(block.since), "applied": block.applied}
            stamp = Stamp(epoch=state.epoch, offset=block.applied)
            used = block.applied - number * BLOCK + 1
            arrays = {
                "fingerprints": block.fingerprints[:used],
                "marks": np.fromiter(block.marks.keys(), np.uint64, len(block.marks)),
                "marked_at": np.fromiter(block.marks.values(), np.int64, len(block.marks)),
            }
            rows.append(Row(f"{BLOCKS}|{number % state.fingerprints.blocks}", pack(stamp, meta, arrays)))
    state.fingerprints.dirty.clear()
    return rows


def _known(at: float) -> float | None:
    return at if abs(at) < np.inf else None


def copy_partition(state: PartitionState) -> Row:
    """Return the row of the partition itself: clocks of offsets that may be committed."""
    meta = {"marks": list(state.marks)}
    return Row(PARTITION, pack(Stamp(epoch=state.epoch, offset=state.applied), meta, {}))


def _head(state: PartitionState, team: int, floor: int) -> dict[str, Any]:
    head = state.heads[team]
    return {
        "ladder": head.ladder.to_state(),
        "tiers": {node: tiers.to_state() for node, tiers in head.tiers.items()},
        "commands": head.commands,
        "burning": head.burning,
        "votes": head.votes.to_state() if head.votes else None,
        "apart": {key: sorted(months.items()) for key, months in head.apart.items()},
        "shares": {former: share.to_state() for former, share in head.shares.items()},
        "keys": _chains(head.keys),
        "projects": _chains(head.projects),
        "nameless": list(head.nameless.items()),
        "closed": int(state.teams.closed[team]),
        "floor": floor,
        "due": _known(float(state.teams.due[team])),
    }


def _chains(chains: Mapping[str, KeyChain]) -> dict[str, Any]:
    return {name: [list(c.nodes), c.project, c.environment, c.seen_at] for name, c in chains.items()}


def _panel(head: Head) -> dict[str, np.ndarray[Any, Any]]:
    saved = head.panel.dump() if head.panel is not None else head.saved_panel
    return {} if saved is None else {"panel": np.frombuffer(saved, np.uint8)}


# --- reading -------------------------------------------------------------------------------------


def restore(state: PartitionState, rows: Mapping[str, bytes], committed: int | None) -> None:
    """Fill an empty state from its rows, as of what is committed; replaying the log from there completes it.

    Args:
        committed: Next offset that will be read; None = the log begins.

    Raises:
        LostState: the rows are of a later incarnation of the topic, or none tells the clock at the commit.
        BadRow: a row this version cannot read.
    """
    hours: dict[int, int] = {}
    stored = False
    for key, value in sorted(rows.items(), key=lambda item: _order(item[0])):
        stamp, meta, arrays = unpack(value)
        if stamp.epoch > state.epoch:
            raise LostState(f"row {key!r} is of epoch {stamp.epoch}, the topic of epoch {state.epoch}")
        offset = stamp.offset if stamp.epoch == state.epoch else -1
        kind = key.split("|", 1)[0]
        if kind == PARTITION:
            stored |= offset >= 0
            _load_partition(state, meta, committed, offset)
        elif kind == HEAD:
            _load_head(state, key.split("|", 1)[1], meta, arrays, offset)
        elif kind == SERIES:
            team = _load_series(state, key.split("|", 2)[2], meta, arrays, offset)
            if "hour" in meta:
                hours[team] = meta["hour"]
        elif kind != BLOCKS:
            raise BadRow(f"row of unknown kind: {key!r}")
        state.replayed = max(state.replayed, offset)
    if committed is not None and not state.marks:
        if stored:
            raise LostState(f"partition {state.number}: no clock is known for the commit at offset {committed}")
        # No snapshot of the partition yet: the next one may be met by a process that finds no commit either.
        state.marks.append((committed, state.now, state.rules))
    state.fingerprints.load(list(_blocks(state, rows)))
    _complete(state, hours)
    _adopt(state)


def _adopt(state: PartitionState) -> None:
    """Have everything stored anew before the next commit: what others wrote, others may still remove."""
    state.dirty_heads |= state.heads.keys()
    state.series.dirty[: len(state.series)] = True
    state.fingerprints.adopt()


def _order(key: str) -> tuple[int, int]:
    """Series of a team before its head, groups in their order."""
    parts = key.split("|", 2)
    return (1, int(parts[1])) if parts[0] == SERIES else ({PARTITION: 0, HEAD: 2}.get(parts[0], 3), 0)


def _load_partition(state: PartitionState, meta: Mapping[str, Any], committed: int | None, offset: int) -> None:
    """Load the row of one writer: the clock at the commit may be known to any of them."""
    if (offset < 0 and MOVED not in meta) or committed is None:
        return
    for at, now, rules in meta["marks"]:
        if at == committed and not state.marks:
            state.applied, state.now, state.rules = committed - 1, now, rules
            state.marks.append((at, now, rules))


def _load_head(state: PartitionState, name: str, meta: Mapping[str, Any], arrays: Mapping[str, Any], at: int) -> None:
    team = state.team(name, 0)
    head = state.heads[team]
    head.ladder = LadderState.from_state(meta["ladder"])
    head.tiers = {node: NodeTiers.from_state(tiers) for node, tiers in meta["tiers"].items()}
    head.commands, head.burning = dict(meta["commands"]), dict(meta["burning"])
    if any(turn % 2 for turn in head.burning.values()):
        state.burning.add(team)
    if meta.get("votes") is not None:
        head.votes = Votes.from_state(meta["votes"])
        state.voted.add(team)
    head.apart = {key: Counter(dict(months)) for key, months in meta["apart"].items()}
    head.shares = {former: Totals.from_state(share) for former, share in meta["shares"].items()}
    head.nameless = {session: at for session, at in meta.get("nameless", ())}
    of = (state.granted, head.granted), (state.apart, head.apart), (state.moved, head.shares)
    for teams_with, any_of in (*of, (state.nameless, head.nameless)):
        if any_of:
            teams_with.add(team)
    for kind, chains in (("keys", head.keys), ("projects", head.projects)):
        chains |= {name: KeyChain(tuple(nodes), *rest) for name, (nodes, *rest) in meta[kind].items()}
    head.saved_panel = arrays["panel"].tobytes() if "panel" in arrays else None
    teams = state.teams
    teams.judged[team], teams.closed[team] = max(int(teams.judged[team]), at), meta["closed"]
    teams.floor[team] = max(int(teams.floor[team]), meta["floor"])
    teams.due[team] = np.inf if meta["due"] is None else meta["due"]


def _load_series(state: PartitionState, name: str, meta: Mapping[str, Any], arrays: Mapping[str, Any], at: int) -> int:
    """Load one group; return its team. Of a series that two groups tell of, the later one holds."""
    team = state.team(name, 0)
    table = state.series
    rows, later = [], []
    for kind, label, node in meta["names"]:
        row = table.find(team, kind, label)
        row = table.create(team, kind, label, 0) if row is None else row
        later.append(at >= table.seen[row])
        rows.append(row)
        if later[-1]:
            table.node[row], table.seen[row] = node, at
    chosen = np.array(later, np.bool_)
    index = np.array(rows, np.int64)[chosen]
    scatter(series_columns(state), index, arrays["series"][chosen])
    for row in index.tolist():
        table.set_step(row, int(table.step[row]))
    # A head that was not stored again had not changed: it holds up to here.
    state.teams.judged[team] = max(int(state.teams.judged[team]), at)
    if "team" in arrays:
        scatter(team_columns(state), np.array([team]), arrays["team"])
        state.calls.restore(team, arrays["calls"])
        state.teams.floor[team] = max(int(state.teams.floor[team]), meta["floor"])
        state.teams.seen[team] = at
    return team


def _blocks(state: PartitionState, rows: Mapping[str, bytes]) -> Iterator[BlockRow]:
    for key, value in rows.items():
        if not key.startswith(f"{BLOCKS}|"):
            continue
        stamp, meta, arrays = unpack(value)
        if stamp.epoch == state.epoch:
            full = np.zeros(BLOCK, np.uint64)
            full[: len(arrays["fingerprints"])] = arrays["fingerprints"]
            since = -np.inf if meta["since"] is None else meta["since"]
            marks = dict(zip(arrays["marks"].tolist(), arrays["marked_at"].tolist(), strict=True))
            yield BlockRow(meta["number"], meta["at"], since, meta["applied"], full, marks)


def _complete(state: PartitionState, hours: Mapping[int, int]) -> None:
    """Derive what is not stored.

    Args:
        hours: Hour of the clock that each team's row was stored in. A row that is older than the hour of the commit
            has not changed since, or it would have been stored: what full hours set is derived from it.
    """
    teams = state.teams
    state.hour = int(state.now // HOUR_S) if state.now else -1
    state.grid = int(state.now // GRID_S) if state.now else -1
    behind = [team for team, hour in hours.items() if hour < state.hour]
    state.settle_teams(np.array(behind, np.int64), state.hour)
    every = np.arange(len(teams))
    teams.move_on(every, teams.floor[every])
