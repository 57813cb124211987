"""What became of requests, by the log of findings."""

from spendbrake.schemas.finding import COMMAND, FEEDBACK, Finding
from spendbrake.schemas.topics import FINDINGS
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.reading import Memory, Reading, Rest, Values, decoded

MOST_REQUESTS = 10_000
"""Requests that are remembered: those that were told of last."""
MOST_TOLD = 100
"""Things told of one request that are remembered: the first, and the last ones."""


class RequestBook:
    """What was told of requests. Each process has its own: all come to the same, whenever they began."""

    def __init__(self, broker: Rest, place: Place, most: int = MOST_REQUESTS) -> None:
        self._told: Memory[str, dict[str, Finding]] = Memory(most, FINDINGS.retention_s)
        self._log = Reading(broker, place.topic(FINDINGS.name), self._take, self._told)

    async def read(self) -> dict[str, list[Finding]]:
        """Return what was told of each request up to now, oldest first, by its id; the one with the last news last."""
        await self._log.read()
        found = {name: sorted(told.values(), key=_time) for name, told in self._told.known.items()}
        return dict(sorted(found.items(), key=lambda each: (each[1][-1].time, each[0])))

    def _take(self, values: Values) -> None:
        mark = COMMAND.encode()
        for finding in decoded(Finding, [value for value in values if value is not None and mark in value]):
            if finding.detector == COMMAND and finding.family != FEEDBACK:
                told = self._told.known.get(finding.incident, {})
                told.setdefault(finding.id, finding)
                if len(told) > MOST_TOLD:
                    del told[sorted(told.values(), key=_time)[1].id]
                self._told.put(finding.incident, told, finding.time)


def _time(finding: Finding) -> float:
    return finding.time
