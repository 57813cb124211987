"""Commands in the rollups log: requests to a node's reserve with their approvals, and grants to nodes above teams."""

from dataclasses import replace

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import APPROVERS, Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import Finding, FindingState
from spendbrake.schemas.money import usd_text
from spendbrake.schemas.topics import ROLLUPS, USAGE
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.allocation.allowance import Grant
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.judge.orders import (
    KEPT_S,
    exception_text,
    finding_of,
    grant_text,
    in_time,
    moment_text,
    remember,
)
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.state import Parent
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period


def take(
    parent: Parent, command: Command, rules: Rules, period: Period, now: float, secret: bytes
) -> tuple[list[Finding], list[OutRecord]]:
    """Take a request or a decision in at the desk of a parent; return what is told, and what other logs must do.

    Raises:
        BadRecord: it is refused, and why; nothing has changed.
    """
    parent.desk.forget(now)
    known = parent.desk.requests.get(command.request) if command.kind != "request" else None
    if known is None or command.kind == "approve":  # what was taken here is denied and ended here, whatever has moved
        _check(rules, parent, command if known is None else known.asked)
    own = rules.tree.view(parent.id)
    before = parent.desk.to_state()
    reserve, people = (own.reserve if own is not None else None) or 0, rules.file.approvers.named()
    orders = parent.desk.take(command, now, period.month, reserve, people)
    if parent.desk.to_state() == before:
        return [], []
    records = [order_record(order, rules.partitions, now, secret) for order in orders]
    return [_told(parent, command, now)], records


def obey(
    parent: Parent, command: Command, rules: Rules, period: Period, now: float, stamp: Stamp
) -> tuple[list[Finding], list[Action]]:
    """Give a grant or an exception to a parent, or take it back; nothing follows when that was done before.

    Raises:
        BadRecord: it is refused, and why.
    """
    parent.commands = {name: at for name, at in parent.commands.items() if at > now - KEPT_S}
    if command.id in parent.commands:
        return [], []
    actions: list[Action] = []
    ends = command.kind == "withdraw"
    if command.kind == "exempt" or (ends and command.policy):
        if not ends and not rules.ladder.knows(command.policy):
            raise BadRecord("unknown_policy", "policy", command.policy, "no policy of this name")
        in_time(command, now)
        until = 0.0 if ends else command.expires_at
        why, what = exception_text(command, until, now, parent.ladder)
        actions = rules.ladder.exempt(parent.ladder, command, until, now, stamp, why)
        changed = True
    elif command.kind == "grant":
        in_time(command, now)
        grant = Grant(command.request, command.amount, period.month, min(command.expires_at, period.ends_at))
        changed, what = parent.tiers.give(grant), grant_text(command, grant)
    elif ends:
        changed, what = parent.tiers.withdraw(command.request), "has its top-up no more"
    else:
        raise BadRecord("unknown_kind", "kind", command.kind, "not for the limits of a node")
    remember(parent.commands, command.id, now)
    finding = finding_of(command, parent.id, "", what, "resolve" if ends else "open", now)
    return [finding] * changed, actions


def order_record(command: Command, partitions: int, now: float, secret: bytes) -> OutRecord:
    """Return a command as a signed record of the log that owns its node."""
    topic = USAGE.name if command.home else ROLLUPS.name
    key, value = (command.home or command.node).encode(), encode(command)
    headers = seal("command", topic, key, value, secret)
    return OutRecord(topic, key, value, now, partition_of(key, partitions), headers)


def _check(rules: Rules, parent: Parent, command: Command) -> None:
    """Check that a parent decides on a command by the tree as it is now, and that the node has what is asked about.

    Raises:
        BadRecord: it does not, and why.
    """
    view = _asked_for(rules, command)
    if view.id == parent.id:
        raise BadRecord("bad_command", "node", command.node, "nobody above it keeps a reserve")
    if rules.tree.desk_of(view).id != parent.id:
        raise BadRecord(
            "misplaced", "node", command.node, f"its desk is {rules.tree.desk_of(view).id!r} now: ask again"
        )
    if command.kind == "request" and command.policy and not rules.ladder.knows(command.policy):
        raise BadRecord("unknown_policy", "policy", command.policy, "no policy of this name")
    if command.kind == "request" and command.amount:
        raised = rules.tree.raised(command.node, command.home)
        if raised is None or not raised.budgeted:
            raise BadRecord("no_limit", "node", command.node, "it has no budget and no allocation to be raised")


def _asked_for(rules: Rules, command: Command) -> NodeView:
    """Return the node that a command is about; one that no file lists stands under its team.

    Raises:
        BadRecord: there is no such node.
    """
    view = rules.tree.view(command.node)
    if view is None and command.home:
        view = rules.team(command.home)
    if view is None or view.home != command.home:
        raise BadRecord("unknown_node", "node", command.node, f"no such node in {command.home or 'the tree'!r}")
    return view


def _told(parent: Parent, command: Command, now: float) -> Finding:
    """Return what people are told of a request that has moved on, and at whose desk."""
    request = parent.desk.requests[command.request or command.id]
    asked = request.asked
    wants = f"{usd_text(asked.amount)} more" if asked.amount else f"an exception from policy {asked.policy}"
    missing = " and ".join(sorted(APPROVERS - {one.role for one in request.approvals}))
    status = f"open, {missing} must approve" if request.status == "open" else request.status
    what = f"asks for {wants} until {moment_text(asked.expires_at)}: request {asked.id} is {status}"
    state: FindingState = "resolve"
    if request.status == "open":
        state = "open" if command.kind == "request" else "update"
    told = finding_of(command, asked.node, asked.home, what, state, now)
    return replace(
        told, evidence={**told.evidence, "desk": parent.id, "status": request.status, "open_until": request.open_until}
    )
