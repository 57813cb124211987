"""GET /healthz and /metrics: whether this process does its work, judged by how far it has read. It mends nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.streams.api.access.gate import may
from spendbrake.streams.api.pages import Operation
from spendbrake.streams.metrics import Metrics

STILL_S = 30.0
"""A partition that is not read to its end, and whose offset has not moved for so long, is stuck."""
CONTROL_S = 30.0
SETTLE_S = 120.0
"""A group that has not settled for so long does not come to work."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far one partition is.

    Attributes:
        committed: Offset last committed by this process, None before its first.
        expected: Offset that is delivered next, None before the first delivery.
        end: End of the log as last seen.
        pending: Oldest offset that is delivered and not acknowledged, None while there is none.
    """

    committed: int | None
    expected: int | None
    end: int | None
    pending: int | None = None

    @property
    def lag(self) -> int:
        """Return how many offsets are not acknowledged, as far as is known."""
        known = (done for done in (self.committed, self.pending, self.expected) if done is not None)
        done = next(known, None)
        return 0 if done is None or self.end is None else max(0, self.end - done)

    @property
    def unread(self) -> int:
        """Return how many offsets are not delivered, as far as is known."""
        done = self.expected if self.expected is not None else self.committed
        return 0 if done is None or self.end is None else max(0, self.end - done)


@dataclass(frozen=True, slots=True)
class Sight:
    """One service as it is at a moment.

    Attributes:
        settled: Whether the group's last rebalance has ended.
        crashed: What it has crashed of, empty while it runs.
        places: Partitions in this process's hands, by topic and number.
        anywhere: Partitions of each subscribed topic that any member of the group holds.
        control_age_s: Since the control topic was read; None for a service that does not follow it.
        holes: Chunks read again because they did not join, since the start; `gaps` offsets that hold no record.
    """

    name: str
    settled: bool
    crashed: str
    places: Mapping[tuple[str, int], Place]
    anywhere: Mapping[str, int]
    control_age_s: float | None = None
    holes: int = 0
    gaps: int = 0


class Watched(Protocol):
    """A service that can be looked at."""

    def __call__(self) -> Sight:
        """Return how it is now."""


class PartitionHealth(BaseModel):
    """How far a partition is; `still_s` is how long it has stood before its end without moving.

    Only reading is judged: a worker may wait long for a receiver before it acknowledges, and one that waits too
    long reads no further.
    """

    topic: str
    partition: int
    committed: int | None
    expected: int | None
    end: int | None
    lag: int
    still_s: float


class ServiceHealth(BaseModel):
    """One service of the process."""

    name: str
    settled: bool
    control_age_s: float | None
    partitions: list[PartitionHealth]


class HealthReport(BaseModel):
    """Whether all is well; each reason names service, topic and partition."""

    status: str
    reasons: list[str]
    services: list[ServiceHealth]


class Health:
    """Judges what it sees of services, from one look to the next.

    Args:
        clock: A clock that never runs back, seconds.
    """

    def __init__(self, clock: Callable[[], float], *, still_s: float = STILL_S, settle_s: float = SETTLE_S) -> None:
        self._clock, self._still_s, self._settle_s = clock, still_s, settle_s
        self._behind: dict[tuple[str, str, int], tuple[int | None, float]] = {}
        self._unsettled: dict[str, float] = {}

    def judge(self, sights: Iterable[Sight]) -> HealthReport:
        """Return what is wrong now. A partition stands still from the first look that found it so."""
        now = self._clock()
        services: list[ServiceHealth] = []
        reasons: list[str] = []
        for sight in sights:
            partitions = self._partitions(sight, now)
            reasons += [*self._of_service(sight, now), *self._of_partitions(sight.name, partitions)]
            services.append(
                ServiceHealth(
                    name=sight.name,
                    settled=sight.settled,
                    control_age_s=None if sight.control_age_s is None else round(sight.control_age_s, 3),
                    partitions=partitions,
                )
            )
        return HealthReport(status="bad" if reasons else "ok", reasons=reasons, services=services)

    def _partitions(self, sight: Sight, now: float) -> list[PartitionHealth]:
        found = []
        for (topic, number), place in sorted(sight.places.items()):
            since = self._since((sight.name, topic, number), place, now)
            found.append(
                PartitionHealth(
                    topic=topic,
                    partition=number,
                    committed=place.committed,
                    expected=place.expected,
                    end=place.end,
                    lag=place.lag,
                    still_s=round(now - since, 3),
                )
            )
        held = {(sight.name, *tp) for tp in sight.places}
        for gone in [key for key in self._behind if key[0] == sight.name and key not in held]:
            del self._behind[gone]
        return found

    def _since(self, key: tuple[str, str, int], place: Place, now: float) -> float:
        """Return since when the partition has stood at this very offset with more to read."""
        if place.unread == 0:
            self._behind.pop(key, None)
            return now
        at = place.expected if place.expected is not None else place.committed
        known = self._behind.get(key)
        if known is None or known[0] != at:
            self._behind[key] = at, now
            return now
        return known[1]

    def _of_partitions(self, service: str, partitions: Sequence[PartitionHealth]) -> list[str]:
        return [
            f"{service}: {each.topic}/{each.partition} stands at {each.expected} of {each.end} for {each.still_s:.0f} s"
            for each in partitions
            if each.still_s >= self._still_s
        ]

    def _of_service(self, sight: Sight, now: float) -> list[str]:
        if sight.crashed:
            return [f"{sight.name}: crashed: {sight.crashed}"]
        reasons = []
        if sight.control_age_s is not None and sight.control_age_s >= CONTROL_S:
            reasons.append(f"{sight.name}: control.v1 was not read for {sight.control_age_s:.0f} s")
        if not sight.settled:
            waited = now - self._unsettled.setdefault(sight.name, now)
            return [*reasons, f"{sight.name}: its group does not settle"] if waited >= self._settle_s else reasons
        self._unsettled.pop(sight.name, None)
        lonely = sorted(topic for topic, n in sight.anywhere.items() if n == 0)
        return [*reasons, *(f"{sight.name}: nobody has a partition of {topic}" for topic in lonely)]


class Watch:
    """Answers for the services of a process.

    Args:
        services: Returns those that there are now: a class of receivers may be named by a later policy.
    """

    def __init__(self, services: Callable[[], Sequence[Watched]], health: Health, metrics: Metrics) -> None:
        self._services, self._health, self._metrics = services, health, metrics
        self._told: dict[str, int] = {}

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        return [
            Operation(
                method="GET",
                path="/healthz",
                group="operations",
                needs=None,
                handler=self.healthz,
                answers={200: HealthReport, 503: HealthReport},
            ),
            Operation(
                method="GET",
                path="/metrics",
                group="operations",
                needs="read",
                handler=self.show_metrics,
                answers={200: None},
            ),
        ]

    async def healthz(self, request: Request) -> Response:
        """Tell whether this process does its work.

        503 with reasons when a partition is not read to its end and has not moved for 30 s, when nobody in the group
        has a partition of a topic, when control.v1 is not read, or when a service has crashed. Without a token that may
        read, the status is all that is told.
        """
        report = self._health.judge(service() for service in self._services())
        bad = bool(report.reasons)
        if not may(request, "read"):
            report = HealthReport(status=report.status, reasons=[], services=[])
        return JSONResponse(report.model_dump(), 503 if bad else 200, {"cache-control": "no-store"})

    async def show_metrics(self, request: Request) -> Response:
        """Tell all measurements in the text format of Prometheus."""
        lags: dict[tuple[str, int], int] = {}
        for service in self._services():
            sight = service()
            # Several services of a process may read one topic: the one furthest behind is told.
            lags |= {tp: max(place.lag, lags.get(tp, 0)) for tp, place in sight.places.items()}
            for topic in sight.anywhere:
                self._metrics.count("holes", topic, n=self._rise(f"{sight.name} holes", sight.holes))
                self._metrics.count("gaps", topic, n=self._rise(f"{sight.name} gaps", sight.gaps))
        for (topic, number), lag in lags.items():
            self._metrics.set("lag", lag, topic, str(number))
        return Response(self._metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    def _rise(self, name: str, total: int) -> int:
        """Return by how much a total that is kept elsewhere has risen."""
        known, self._told[name] = self._told.get(name, 0), total
        return max(0, total - known)


def sight_of(service: Any) -> Sight:
    """Return how a worker's service is (streams/workers/service.py: Service)."""
    app, topic = service.app, service.topic
    running = app.started and not app.should_stop
    settled = running and not app.rebalancing and app.settled_generation is not None
    places = {
        (tp.topic, tp.partition): Place(progress.committed, progress.expected, progress.end, progress.pending)
        for tp, progress in (app.consumer.progress() if settled else {}).items()
    }
    held = {number for name, number in places if name == topic}
    for host in app.assignor.external_topics_metadata().values():
        held |= set(host.get(topic, ()))
    return Sight(
        name=service.name,
        settled=settled,
        crashed=repr(app.crash_reason) if app.crashed else "",
        places=places,
        anywhere={topic: len(held)},
        control_age_s=service.versions.age_s() if service.versions is not None else None,
        holes=app.consumer.joined.holes if running else 0,
        gaps=app.consumer.joined.gaps if running else 0,
    )
