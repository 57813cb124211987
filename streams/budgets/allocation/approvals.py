"""Requests for more money or an exception, and the two approvals that each needs: the desk of one reserve. Pure.

A request is open until it is granted, denied, or three days old, and no longer than what it asks for would last: the
reserve would pay for a grant that ends before it begins. It is granted by one approval in finance and one in
engineering, of two people, neither of them the requester, by whatever names these go. A top-up is paid out of the
month's reserve, once, when the second approval comes. Whatever is refused changes nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.command import APPROVERS, Approval, Command
from spendbrake.schemas.money import NanoUsd, usd_text
from spendbrake.schemas.parts.approvers import plain
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.rows import from_row, to_row

DeskState: TypeAlias = dict[str, Any]
Status: TypeAlias = Literal["open", "granted", "denied", "withdrawn"]

NOBODY: Mapping[str, str] = {}
DAY_S = 86_400.0
OPEN_S = 3 * DAY_S
LONGEST_S = 62 * DAY_S
"""The longest that may be asked for: two months. What the clock of the log is behind is let pass (`SLACK_S`)."""
SLACK_S = 3_600.0
KEPT_S = 70 * DAY_S
"""A request is known for longer than what it asked for can last, so that this can be ended."""
MOST, MOST_OPEN, MOST_OF_ONE = 100, 40, 20
"""Requests that a desk remembers, and open ones, in all and of one person: a row has room for so many, and a desk is
nobody's alone. What is over makes room, the oldest first."""
LONGEST_TEXT = 300
"""Characters of a reason and of a name."""
TEXTS = ("id", "node", "home", "by", "request", "policy", "reason")


@dataclass(slots=True)
class Request:
    """A request and what became of it.

    Attributes:
        asked: The command as it came.
        asked_at: The log's clock then.
        approvals: Who approved so far, one a role.
        status: `open` until it is decided; an open one that is too old, or asks for what is over, can no longer be.
    """

    asked: Command
    asked_at: float
    approvals: tuple[Approval, ...] = ()
    status: Status = "open"

    @property
    def open_until(self) -> float:
        """Until when it can be decided, epoch seconds."""
        return min(self.asked_at + OPEN_S, self.asked.expires_at)

    def open_at(self, now: float) -> bool:
        """Tell whether it can still be decided."""
        return self.status == "open" and now < self.open_until

    def over_at(self, now: float) -> bool:
        """Tell whether nothing can follow from it any more."""
        granted = self.status == "granted" and now < self.asked.expires_at
        return not granted and not self.open_at(now)


@dataclass(slots=True)
class Desk:
    """The requests to one node's reserve.

    Attributes:
        requests: By id, in the order they came.
        paid: Out of the reserve, nano-USD by month.
    """

    requests: dict[str, Request] = field(default_factory=dict)
    paid: dict[str, NanoUsd] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Request]:
        """Yield all that is remembered."""
        return iter(self.requests.values())

    def take(
        self, command: Command, now: float, period: str, reserve: NanoUsd, people: Mapping[str, str] = NOBODY
    ) -> list[Command]:
        """Take a request or a decision in; return what must be written into the log of the node.

        Args:
            now: The log's clock.
            period: The month of the reserve.
            reserve: What it holds when the month begins, nano-USD.
            people: Persons by the plain names that they go by, too.

        Raises:
            BadRecord: it is refused, and why.
        """
        for name in TEXTS:
            if len(text := getattr(command, name)) > LONGEST_TEXT:
                raise BadRecord("bad_command", name, text, f"longer than {LONGEST_TEXT} characters")
        if command.kind == "request":
            self._ask(command, now, reserve - self.paid.get(period, 0), people)
            return []
        request = self.requests.get(command.request)
        if request is None:
            raise BadRecord("unknown_request", "request", command.request, "no such request here")
        if command.kind == "approve":
            if Approval(by=command.by, role=command.role) in request.approvals:
                return []
            self._check(request, command, now)
            return self._approve(request, command, period, reserve, people)
        own = _person(command.by, people) == _person(request.asked.by, people)
        if command.kind == "deny":
            return self._deny(request, command, now, own=own)
        if command.kind == "withdraw":
            return self._withdraw(request, command, own=own)
        raise BadRecord("unknown_kind", "kind", command.kind, "not for the log of a reserve")

    def forget(self, now: float) -> None:
        """Drop requests that are too old for their grants to be in force, and of those that are over the oldest."""
        self.requests = {name: one for name, one in self.requests.items() if one.asked_at > now - KEPT_S}
        over = [name for name, one in self.requests.items() if one.over_at(now)]
        for name in over[: max(len(self.requests) - MOST + 1, 0)]:
            del self.requests[name]

    def to_state(self) -> DeskState:
        """Return the state as JSON-ready data."""
        rows = [[to_row(r.asked), r.asked_at, [to_row(a) for a in r.approvals], r.status] for r in self]
        return {"requests": rows, "paid": dict(self.paid)}

    @classmethod
    def from_state(cls, state: DeskState) -> "Desk":
        """Return the desk that `to_state` told of."""
        desk = cls(paid=dict(state["paid"]))
        for asked, asked_at, approvals, status in state["requests"]:
            command = from_row(Command, asked)
            given = tuple(from_row(Approval, one) for one in approvals)
            desk.requests[command.id] = Request(command, asked_at, given, status)
        return desk

    def _ask(self, command: Command, now: float, left: NanoUsd, people: Mapping[str, str]) -> None:
        if command.id in self.requests:
            return
        if command.amount < 0 or (command.amount > 0) == bool(command.policy):
            raise BadRecord("bad_command", "amount", command.amount, "a request is for money, or for a policy")
        if command.expires_at <= now:
            raise BadRecord("bad_command", "expires_at", command.expires_at, f"has passed at {now:.0f}")
        if command.expires_at > now + LONGEST_S + SLACK_S:
            why = f"more than {LONGEST_S / DAY_S:.0f} days ahead: ask again then"
            raise BadRecord("bad_command", "expires_at", command.expires_at, why)
        _afford(command, left)
        waiting = [_person(one.asked.by, people) for one in self if one.open_at(now)]
        mine = waiting.count(_person(command.by, people))
        if max(len(waiting) - MOST_OPEN, mine - MOST_OF_ONE, len(self.requests) - MOST) >= 0:
            why = f"{len(waiting)} requests wait at this desk, {mine} of them of the same person: decide some first"
            raise BadRecord("too_many_requests", "request", command.id, why)
        self.requests[command.id] = Request(command, now)

    def _approve(
        self, request: Request, command: Command, period: str, reserve: NanoUsd, people: Mapping[str, str]
    ) -> list[Command]:
        asked, who = request.asked, _person(command.by, people)
        approval = Approval(by=command.by, role=command.role)
        if who == _person(asked.by, people):
            raise BadRecord("own_request", "by", command.by, "nobody approves what they asked for")
        if any(who == _person(one.by, people) or command.role == one.role for one in request.approvals):
            raise BadRecord("second_role_missing", "role", command.role, "approved already by this person or role")
        approvals = (*request.approvals, approval)
        if {one.role for one in approvals} < APPROVERS:
            request.approvals = approvals
            return []
        _afford(asked, reserve - self.paid.get(period, 0))
        self.paid[period] = self.paid.get(period, 0) + asked.amount
        request.approvals, request.status = approvals, "granted"
        kind: Literal["grant", "exempt"] = "grant" if asked.amount else "exempt"
        return [replace(asked, id=f"{asked.id}/{kind}", kind=kind, request=asked.id, approvals=approvals)]

    def _deny(self, request: Request, command: Command, now: float, *, own: bool) -> list[Command]:
        if request.status == "denied":
            return []
        if not own:
            self._check(request, command, now)
        elif not request.open_at(now):
            raise BadRecord("request_closed", "request", command.request, f"it is {request.status}")
        request.status = "denied"
        return []

    def _withdraw(self, request: Request, command: Command, *, own: bool) -> list[Command]:
        if not own and command.role not in APPROVERS:
            raise BadRecord("not_allowed", "role", command.role, "for the requester, finance or engineering")
        if request.status == "withdrawn":
            return []
        if request.status != "granted":
            instead = ", nothing was granted: deny it" if request.status == "open" else ""
            raise BadRecord("request_closed", "request", command.request, f"it is {request.status}{instead}")
        request.status = "withdrawn"
        return [
            replace(
                request.asked,
                id=f"{request.asked.id}/withdraw",
                kind="withdraw",
                by=command.by,
                role=command.role,
                request=request.asked.id,
            )
        ]

    @staticmethod
    def _check(request: Request, command: Command, now: float) -> None:
        if command.role not in APPROVERS:
            raise BadRecord("not_allowed", "role", command.role, f"for {' and '.join(sorted(APPROVERS))}")
        if not request.open_at(now):
            status = "too old" if request.status == "open" else request.status
            raise BadRecord("request_closed", "request", command.request, f"it is {status}")


def _person(by: str, people: Mapping[str, str]) -> str:
    """Return who a name is."""
    return people.get(plain(by), plain(by))


def _afford(asked: Command, left: NanoUsd) -> None:
    """Refuse what the reserve cannot pay; an exception costs nothing, whatever is left.

    Raises:
        BadRecord: there is less left.
    """
    if asked.amount and asked.amount > left:
        raise BadRecord("reserve_exceeded", "amount", asked.amount, f"the reserve has {usd_text(max(left, 0))} left")
