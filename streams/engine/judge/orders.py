"""Commands in the usage log: grants, exceptions and feedback of the nodes of a team, each applied once by its id."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

from spendbrake.actions.policies.state import LadderState
from spendbrake.detectors.memory.votes import Vote
from spendbrake.schemas.command import OPINIONS, Command
from spendbrake.schemas.finding import COMMAND, FEEDBACK, Finding, FindingState
from spendbrake.schemas.money import usd_text
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.allocation.allowance import Grant
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.rules.routes import Routes

KEPT_S = 70 * 86_400.0
"""The id of a command is remembered for longer than what it gave can last: its month and the next."""
MOST_IDS = 1_000
"""Ids that a node remembers: a row has room for so many. A record comes again soon after it came first."""


class Orders:
    """Applies the commands of one segment."""

    def __init__(self, judge: Judge, routes: Routes) -> None:
        self.judge, self.routes = judge, routes
        self.state, self.rules = judge.state, judge.rules

    def apply(self, home: str, command: Command, moment: Moment) -> None:
        """Apply a command to a node of the team `home`.

        Raises:
            BadRecord: it is refused, and why.
        """
        if partition_of(home.encode(), self.rules.partitions) != self.state.number:
            raise BadRecord("misplaced", "node", command.node, f"the log of {home!r} is not this partition")
        team = self.routes.row_of(self.rules.home(home))
        if not self.judge.judges(team, moment.offset):
            return
        head = self.state.heads[team]
        head.commands = {name: at for name, at in head.commands.items() if at > moment.now - KEPT_S}
        if command.id in head.commands:
            return
        in_time(command, moment.now)
        if command.kind == "exempt":
            self._exempt(team, command, command.expires_at, moment)
        elif command.kind == "withdraw" and command.policy:
            self._exempt(team, command, 0.0, moment)
        elif command.kind in ("grant", "withdraw"):
            self._limits(team, self._node(home, command.node), command, moment)
        elif command.kind == "feedback":
            self._feedback(team, command, moment)
        else:
            raise BadRecord("unknown_kind", "kind", command.kind, "not for the log of a team")
        remember(head.commands, command.id, moment.now)

    def _node(self, home: str, node: str) -> NodeView:
        """Return the node of that id in a team.

        Raises:
            BadRecord: there is none that a budget could be watched of.
        """
        team = self.rules.home(home)
        view = team if node == team.id else self.rules.tree.view(node)
        if view is None:
            table, row = self.state.series, self.state.teams.index[team.id]
            named = next((table.names[r] for r in table.of_team[row] if table.node[r] == node), None)
            called = self.rules.node(team.id, named.kind, named.name) if named is not None else None
            view = called or self.rules.tree.within(team, node)
        if view is None or view.home != team.id:
            raise BadRecord("unknown_node", "node", node, f"no node of team {home!r}")
        return view

    def _limits(self, team: int, view: NodeView, command: Command, moment: Moment) -> None:
        """Give a grant, or take it back."""
        row = self.routes.row_of(self.rules.home(view.home), view)
        for _ in self.judge.roll(moment):  # a node that nobody has named yet begins its month here
            pass
        tiers, period = self.judge.tiering.tiers(row), self.judge.tiering.period(row)
        if command.kind == "grant":
            grant = Grant(command.request, command.amount, period.month, min(command.expires_at, period.ends_at))
            changed, what = tiers.give(grant), grant_text(command, grant)
        else:
            changed, what = tiers.withdraw(command.request), "has its top-up no more"
        if changed:
            self.state.granted.add(team)
            self._tell(team, view.id, command, what, moment)
            self.judge.measure(row, moment)

    def _exempt(self, team: int, command: Command, until: float, moment: Moment) -> None:
        """Begin an exception from a policy, or end it."""
        if until and not self.rules.ladder.knows(command.policy):
            raise BadRecord("unknown_policy", "policy", command.policy, "no policy of this name")
        why, what = exception_text(command, until, moment.now, self.state.heads[team].ladder)
        self._tell(team, command.node, command, what, moment)
        self.judge.exempt(team, command, until, why, moment)

    def _feedback(self, team: int, command: Command, moment: Moment) -> None:
        """Take somebody's word for an incident of a detector; budgets and burn rates are arithmetic, not opinions."""
        if not self.rules.panel.knows(command.detector):
            raise BadRecord("unknown_detector", "detector", command.detector, "no detector of this name takes feedback")
        if command.opinion not in OPINIONS:
            raise BadRecord("bad_command", "opinion", command.opinion, f"none of {', '.join(OPINIONS)}")
        vote = Vote(command.detector, command.opinion == "real", moment.now, command.by)
        finding = feedback_of(command, self.state.teams.names[team], moment.now)
        self.judge.voted(team, command.incident, vote, finding, moment)

    def _tell(self, team: int, node: str, command: Command, what: str, moment: Moment) -> None:
        state: FindingState = "resolve" if command.kind == "withdraw" else "open"
        finding = finding_of(command, node, self.state.teams.names[team], what, state, moment.now)
        self.judge.tell(team, finding, moment)


def in_time(command: Command, now: float) -> None:
    """Check that what is given lasts beyond the moment it arrives at: limits are looked at every three minutes.

    Raises:
        BadRecord: it would have ended before it begins.
    """
    if command.kind in ("grant", "exempt") and command.expires_at <= now:
        raise BadRecord("request_closed", "expires_at", command.expires_at, "its time was over before it arrived")


def remember(commands: dict[str, float], name: str, now: float) -> None:
    """Remember the id of a command that was applied; the oldest make room."""
    commands[name] = now
    while len(commands) > MOST_IDS:
        del commands[next(iter(commands))]


def grant_text(command: Command, grant: Grant) -> str:
    """Return what a grant does, for people."""
    return f"has {usd_text(command.amount)} more until {moment_text(grant.expires_at)}"


def exception_text(command: Command, until: float, now: float, ladder: LadderState) -> tuple[str, str]:
    """Return why limits are lifted, and what an exception does, for people; `until` is 0 where it ends."""
    free = f"is free of policy {command.policy}"
    if not until:
        other = ladder.exempt_until(command.policy, command.node, but=command.request)
        rest = f"by another request until {moment_text(other)}" if other > now else "no more"
        return f"The exception was ended by {command.by}", f"{free} {rest}"
    return f"An exception, asked for by {command.by}", f"{free} for {max(until - now, 0) / 3600:.1f} h"


def moment_text(at: float) -> str:
    """Return a moment for people.

    Examples:
        >>> moment_text(1_767_657_600.0)
        '2026-01-06 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def feedback_of(command: Command, team: str, now: float) -> Finding:
    """Return what is told of somebody's word for an incident: a finding of the family `feedback`."""
    said = "is real" if command.opinion == "real" else "is a false alarm"
    reason = f"The alert of {command.detector} at {command.node} {said}, says {command.by} ({command.role})"
    told = finding_of(command, command.node, team, "", "resolve", now)
    return replace(
        told,
        family=FEEDBACK,
        reason=f"{reason}: {command.reason}" if command.reason else f"{reason}.",
        incident=command.incident,
        evidence={
            name: getattr(command, name)
            for name in ("kind", "finding", "incident", "detector", "opinion", "by", "role", "issued_at")
        },
    )


def refusal_of(command: Command, bad: BadRecord, now: float) -> Finding:
    """Return what people are told of a request or a decision that is refused; nothing else follows from it."""
    state: FindingState = "resolve" if command.kind == "request" else "update"
    return finding_of(command, command.node, command.home, f"is refused this: {bad.why}", state, now)


def finding_of(command: Command, node: str, team: str, what: str, state: FindingState, now: float) -> Finding:
    """Return what people are told of a command; the request it goes back to is the incident."""
    approved = ", ".join(f"{one.by} ({one.role})" for one in command.approvals)
    reason = f"{node} {what}; {command.kind} by {command.by} ({command.role})"
    reason += f", approved by {approved}" if approved else ""
    return Finding(
        id=hashlib.sha256(f"{COMMAND}\0{command.id}\0{state}".encode()).hexdigest()[:32],
        time=now,
        team=team,
        node=node,
        severity="info",
        detector=COMMAND,
        family=COMMAND,
        reason=f"{reason}: {command.reason}" if command.reason else f"{reason}.",
        state=state,
        incident=command.request or command.id,
        evidence={
            "command": command.id,
            "kind": command.kind,
            "by": command.by,
            "role": command.role,
            "request": command.request or command.id,
            "amount_nano": command.amount,
            "policy": command.policy,
            "expires_at": command.expires_at,
            "issued_at": command.issued_at,
            "approvals": [{"by": one.by, "role": one.role} for one in command.approvals],
        },
    )
