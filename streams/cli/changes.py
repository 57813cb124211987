"""What people ask and change by the API: tokens, requests, alerts, feedback. Each change is in the audit before."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command
from spendbrake.schemas.control import Acknowledgement
from spendbrake.streams.api.access.admin import Tokens
from spendbrake.streams.api.desk.buttons import Buttons
from spendbrake.streams.api.desk.delivery import Delivery
from spendbrake.streams.api.desk.feedback import Feedback
from spendbrake.streams.api.desk.requests import Requests
from spendbrake.streams.api.desk.shadow import Shadow
from spendbrake.streams.api.desk.silences import Silences
from spendbrake.streams.api.desk.trials import Prepare, Trials
from spendbrake.streams.api.pages import Operation
from spendbrake.streams.cli.alerts.destination import course_of
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.settings import Settings, named_secret
from spendbrake.streams.workers.audit import Auditor
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.notify.building import Secrets
from spendbrake.streams.workers.people import desk, feedback, told
from spendbrake.streams.workers.people.actions import ActionBook
from spendbrake.streams.workers.people.incidents import IncidentBook
from spendbrake.streams.workers.people.requests import RequestBook
from spendbrake.streams.workers.trial.course import Course
from spendbrake.streams.workers.versions import Versions


def changes(
    config: Settings,
    place: Place,
    broker: Any,
    versions: Versions,
    clock: Callable[[], float],
    parts: contextlib.AsyncExitStack,
    secrets: Secrets = named_secret,
) -> list[Operation]:
    """Return the operations of people; `parts` closes what they keep open, `secrets` are those of destinations."""
    auditor, known = Auditor(broker, place, time.time), RequestBook(broker, place).read
    actions = ActionBook(broker, place)
    incidents = IncidentBook(broker, place, actions)

    def rules() -> Rules:
        return versions.book.at(clock())

    async def say(command: Command, by: str) -> str:
        about = {"by": by, "command": command.id, "node": command.node, "amount_nano": command.amount}
        async with auditor.around(f"budget.{command.kind}", command.request or command.id, about):
            told = (await known()).get(command.request, ()) if command.request else ()
            return await desk.say(broker, place, rules(), command, told)

    async def take(trouble: str, by: str) -> None:
        message = Acknowledgement(trouble=trouble, action="", at=time.time(), by=by)
        await auditor.say(versions, message, "alert.acknowledge", by, {"trouble": trouble})

    find, give = incidents.find, partial(_give, auditor, broker, place)
    tokens = Tokens(versions.tokens, auditor.publish, time.time)
    silences = Silences(versions.silences, partial(auditor.say, versions), time.time)
    operations = [*tokens.operations(), *silences.operations(), *Requests(say, known, rules, time.time).operations()]
    operations += Delivery(_Told(auditor, broker, place, actions), take).operations()
    operations += Feedback(find, give, incidents.report, time.time).operations()
    operations += Trials(_trial(rules, config, secrets), auditor.around).operations()
    operations += Shadow(actions.shadows, lambda: rules().file, time.time).operations()
    if config.slack_signing_secret is not None:
        secret = config.slack_signing_secret.get_secret_value()
        buttons = Buttons(secret, say, take, known, lambda: rules().file, time.time, find=find, give=give)
        parts.push_async_callback(buttons.aclose)
        operations += buttons.operations()
    return operations


def _trial(rules: Callable[[], Rules], config: Settings, secrets: Secrets) -> Prepare:
    """Return what makes tests of the destinations in force."""

    def prepare(name: str, timeout_s: float, node: str | None) -> Course:
        return course_of(name, rules().file, config, secrets, timeout_s, node)

    return prepare


class _Told:
    """What was told by a deployment, and told again."""

    def __init__(self, auditor: Auditor, broker: Any, place: Place, actions: ActionBook) -> None:
        self._auditor, self._broker, self._place = auditor, broker, place
        self.alert = actions.alert
        self.letters = partial(told.dead_letters, broker, place)
        self.results = partial(told.results_of, broker, place)

    async def again(self, action: Action, by: str) -> None:
        """Send a dead letter again, audited."""
        async with self._auditor.around("redrive", action.id, {"by": by, "effect": action.effect}):
            await told.send_again(self._broker, self._place, action, time.time())


async def _give(auditor: Auditor, broker: Any, place: Place, command: Command) -> None:
    """Write somebody's word for an incident into its log."""
    about = {"by": command.by, "command": command.id, "finding": command.finding, "opinion": command.opinion}
    async with auditor.around("feedback.give", command.incident, about):
        await feedback.give(broker, place, command)
