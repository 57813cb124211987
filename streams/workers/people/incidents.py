"""Incidents by any id that people have seen, and what was said of them: by the logs of findings and actions."""

from dataclasses import replace

from spendbrake.schemas.finding import BUDGET, BURN_RATE, COMMAND, FEEDBACK, Finding
from spendbrake.schemas.topics import FINDINGS
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.actions import ActionBook
from spendbrake.streams.workers.people.precision import Report, report_of
from spendbrake.streams.workers.people.reading import Memory, Reading, Rest, Values, decoded
from spendbrake.streams.workers.people.told import LEAST, is_meant

ARITHMETIC = (BUDGET, BURN_RATE, COMMAND)
"""Detectors that nobody has an opinion on."""
MOST_INCIDENTS, MOST_ASIDE = 50_000, 10_000
"""Incidents, and ids of their findings, that are remembered; words on them, and ids that take none."""


class IncidentBook:
    """What was told of incidents. Each process has its own: all come to the same, whenever they began."""

    def __init__(self, broker: Rest, place: Place, actions: ActionBook, most: int = MOST_INCIDENTS) -> None:
        self._topic, self._actions = place.topic(FINDINGS.name), actions
        self._first: Memory[str, Finding] = Memory(most, FINDINGS.retention_s)
        self._incidents: Memory[str, str] = Memory(most, FINDINGS.retention_s)
        self._arithmetic: Memory[str, str] = Memory(MOST_ASIDE, FINDINGS.retention_s)
        self._said: Memory[str, Finding] = Memory(MOST_ASIDE, FINDINGS.retention_s)
        memories = (self._first, self._incidents, self._arithmetic, self._said)
        self._log = Reading(broker, self._topic, self._take, *memories)

    async def find(self, name: str) -> Finding:
        """Return the finding that told people of an incident first, without its evidence.

        Args:
            name: Id of any of its findings, of the incident itself, or of an action that followed; or how it begins.

        Raises:
            LookupError: there is none, or several incidents begin so.
            ValueError: it is of a budget or a burn rate: those are arithmetic, and take no opinion.
        """
        if len(name) < LEAST:
            raise LookupError(f"{name!r}: give {LEAST} digits of the id or more")
        name = await self._actions.finding_of(name) or name
        await self._log.read()
        found = {incident for incident in self._first.known if is_meant(name, incident)}
        found |= {incident for told, incident in self._incidents.known.items() if is_meant(name, told)}
        found &= self._first.known.keys()
        plain = [detector for told, detector in self._arithmetic.known.items() if is_meant(name, told)]
        if plain and not found:
            raise ValueError(f"{name!r} is a finding of {plain[0]}: arithmetic, nothing to have an opinion on")
        if not found:
            raise LookupError(f"no finding {name!r} in {self._topic}: unknown, or older than the log")
        if len(found) > 1 or plain:
            raise LookupError(f"{name!r} begins the ids of several incidents: give more of it")
        return self._first.known[found.pop()]

    async def report(self) -> Report:
        """Return how often each detector was right, as far back as is remembered. Each incident counts once."""
        await self._log.read()
        return report_of(self._first.known.values(), self._said.known.values())

    def _take(self, values: Values) -> None:
        for finding in decoded(Finding, values):
            incident, at = finding.incident, finding.time
            if finding.family == FEEDBACK:
                self._said.put(incident, finding, at)
            elif finding.detector in ARITHMETIC or not incident:
                for name in filter(None, (finding.id, incident)):
                    self._arithmetic.put(name, finding.detector, at)
            else:
                first = self._first.known.get(incident)
                if first is None or (first.severity == "info" and finding.severity != "info"):
                    first = replace(finding, evidence={})
                self._first.put(incident, first, at)
                self._incidents.put(finding.id, incident, at)
