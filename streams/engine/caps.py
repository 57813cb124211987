"""What gateways hold leases against: how much of a hard cap is left, told by the node's owner. Read only."""

from collections.abc import Iterable, Iterator

from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.chains import LIFE_S, Stamped
from spendbrake.streams.engine.parents.cells import month_number
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period
from spendbrake.streams.engine.state.partition import PartitionState

CAP = "cap"
"""Effect beside `limits` that the workers of gateways carry out."""
NEAR = 10
"""A cap is near when less than this part of it is left: 10 = a tenth."""


def team_caps(state: PartitionState, rules: Rules, of: Iterable[int] | None = None) -> Iterator[tuple[int, Action]]:
    """Yield the caps of the nodes of a partition of usage, each with the number of its team; of all teams when None.

    Of a state that has come back and was not stepped yet there is nothing to tell: its series are no nodes yet.
    """
    table = state.series
    for team in sorted(state.heads if of is None else state.heads.keys() & of):
        head = state.heads[team]
        for row in table.of_team[team] if head.tiers else ():
            node = table.node[row]
            tiers = head.tiers.get(node) if node is not None else None
            if node is None or tiers is None or (tiers.allocation is None and not tiers.uncapped):
                continue
            name = table.names[row]
            view = rules.node(state.teams.names[team], name.kind, name.name)
            if view is None:  # it has left the file, or hangs elsewhere: its owner tells of it
                continue
            period = state.periods.current[int(table.calendar[row])]
            spent = int(table.month[row]) + tiers.counted
            yield team, _cap(state, state.teams.names[team], node, tiers, view.allocation, period, spent)


def parent_caps(state: ParentsState, rules: Rules, of: Iterable[str] | None = None) -> Iterator[tuple[str, Action]]:
    """Yield the caps of the nodes of a partition of rollups, each with the node's id; of all nodes when None."""
    for node in sorted(state.parents if of is None else state.parents.keys() & of):
        parent = state.parents[node]
        number = state.numbers.get(parent.calendar)
        view = rules.tree.view(node)
        uncapped = parent.tiers.allocation is None and (view is None or not parent.tiers.uncapped)
        if uncapped or number is None or number >= len(state.periods.current):
            continue
        period = state.periods.current[number]
        spent = parent.totals.book(parent.calendar).months[month_number(period.month)] + parent.tiers.counted
        yield node, _cap(state, "", node, parent.tiers, view.allocation if view is not None else None, period, spent)


def near(cap: Action) -> bool:
    """Tell whether little is left of a cap."""
    whole = cap.params["cap"]
    return whole is not None and bool((whole - cap.params["spent"]) * NEAR <= whole)


def _cap(
    state: Stamped, team: str, node: str, tiers: NodeTiers, base: int | None, period: Period, spent: int
) -> Action:
    """Return the order to tell of one cap, or that it is none any more."""
    return Action(
        id=f"cap-{node}-{state.number}-{state.applied}",
        time=state.now,
        team=team,
        node=node,
        effect=CAP,
        policy="",
        rung="",
        severity="info",
        verdict="allow",
        reason="",
        finding="",
        stamp=Stamp(epoch=state.epoch, offset=state.applied),
        partition=state.number,
        expires_at=state.now + LIFE_S,
        params={
            "period": period.month,
            "ends_at": period.ends_at,
            "cap": tiers.allocation,
            "spent": spent,
            "next": base or 0,
        },
    )
