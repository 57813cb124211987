"""Effect `ticket`: one ticket an alert, in Jira, GitHub or Gitea; later news are comments. It looks before it writes.

Each ticket and comment carries a mark made of the alert's or the action's id, which is searched for first: sent twice
is written once. Both systems index what is new after a moment; a try follows a failed one seconds later.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any, Literal, Protocol

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.effects.base import Effect, GiveUp
from spendbrake.actions.effects.messages.account import account_of, limit_text, status_of
from spendbrake.actions.effects.messages.mail import text_of
from spendbrake.schemas.action import Action

MAX_TITLE = 250
MAX_TEXT = 20_000
"""Characters of a text: Jira takes 32,767, GitHub 65,536; what documents add to them is left room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """Where tickets are kept, and how they read (`string.Template` over the names in `fields_of`)."""

    system: Literal["jira", "github", "gitea"]
    url: str
    project: str
    token: str = field(repr=False)
    username: str = ""
    issue_type: str = "Task"
    labels: tuple[str, ...] = ()
    title: str = "$status: $name: $reason"
    body: str = "$reason"
    close: bool = False


class Tickets(Protocol):
    """A system of tickets. A mark is a word that stands in what was written with it."""

    async def find(self, mark: str) -> str | None:
        """Return the ticket that carries the mark, None if there is none."""

    async def create(self, mark: str, title: str, body: str) -> str:
        """Write a ticket; return its name."""

    async def texts(self, ticket: str) -> list[str]:
        """Return what stands in a ticket: its own text, and that of all comments."""

    async def comment(self, ticket: str, text: str) -> None:
        """Add a comment."""

    async def close(self, ticket: str) -> None:
        """Close a ticket; one that is closed stays so."""

    async def aclose(self) -> None:
        """Close the connections."""


class Ticket(Effect):
    """Writes actions into the trackers of the policy file's ticket destinations.

    Args:
        trackers: By destination name.
        clock: Wall clock, epoch seconds UTC.
        alive: Called before a write, which was looked for in vain; raises `Stopped` in a process that others may have
            replaced.
    """

    name = "ticket"
    takes_ids = True

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        *,
        clock: Callable[[], float],
        timeout_s: float = 20.0,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._alive = alive
        self._places = {name: (place, _opened(place, clock, timeout_s)) for name, place in trackers.items()}

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Write the alert's ticket, or a comment on it; return its name.

        The end of an alert that has no ticket is no reason for one.

        Raises:
            Retry: no answer, a rate limit, or the system's own trouble.
            GiveUp: the system refuses, or the destination is not configured.
        """
        place, tickets = self._opened(action.destination)
        mark, words = f"spendbrake-{alert_key(action)}", fields_of(action)
        ticket = await tickets.find(mark)
        if ticket is None:
            if is_over(action):
                return {"ticket": None}
            title = " ".join(Template(place.title).substitute(words).split())[:MAX_TITLE]
            head, text = Template(place.body).substitute(words), text_of(action)
            body = text if text.startswith(head) else f"{head}\n\n{text}"  # it begins with the reason, as most heads do
            self._alive()
            return {"ticket": await tickets.create(mark, title, _marked(body, action)), "created": True}
        await self._add(tickets, ticket, action)
        if place.close and is_over(action):
            await tickets.close(ticket)
        return {"ticket": ticket, "created": False}

    async def find(self, action: Action) -> bool | None:
        """Say whether the alert's ticket tells of an action; what was just written is indexed after a moment.

        Raises:
            Retry: no answer, a rate limit, or the system's own trouble.
            GiveUp: the system refuses, or the destination is not configured.
        """
        tickets = self._opened(action.destination)[1]
        ticket = await tickets.find(f"spendbrake-{alert_key(action)}")
        return ticket is not None and _tells(await tickets.texts(ticket), action)

    async def aclose(self) -> None:
        """Close the connections."""
        for _, tickets in self._places.values():
            await tickets.aclose()

    def _opened(self, destination: str) -> tuple[Tracker, Tickets]:
        try:
            return self._places[destination]
        except KeyError:
            raise GiveUp(f"no ticket destination is named {destination!r}") from None

    async def _add(self, tickets: Tickets, ticket: str, action: Action) -> None:
        if not _tells(await tickets.texts(ticket), action):
            self._alive()
            await tickets.comment(ticket, _marked(text_of(action), action))


def _tells(texts: Sequence[str], action: Action) -> bool:
    return any(action.id in text for text in texts)


def fields_of(action: Action) -> dict[str, str]:
    """Return what a template may name; the same names as `TICKET_FIELDS` of the policy file."""
    return {
        "status": status_of(action),
        "severity": action.severity,
        "node": action.node,
        "name": account_of(action).name,
        "team": action.team,
        "policy": action.policy,
        "tier": action.tier or "",
        "period": action.period or "",
        "reason": action.reason,
        "action": limit_text(action),
    }


def _marked(text: str, action: Action) -> str:
    """Return a text with the action's id in it; one that is too long to be taken is cut, and says so."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}…"
    return text if action.id in text else f"{text}\n\n{action.id}"


def _opened(place: Tracker, clock: Callable[[], float], timeout_s: float) -> Tickets:
    from spendbrake.actions.effects.trackers import gitea, github, jira

    if place.system != "jira":
        kind = github.GitHub if place.system == "github" else gitea.Gitea
        return kind(place.url, place.project, place.token, place.labels, clock=clock, timeout_s=timeout_s)
    return jira.Jira(
        place.url,
        place.project,
        place.token,
        place.username,
        place.issue_type,
        place.labels,
        clock=clock,
        timeout_s=timeout_s,
    )
