"""One action on its way through the runner: its turn among the calls to its destination, its pauses, its grave."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.port import DeadLetters, Effect, Later
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.actions.delivery.runner import Runner
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import ORIGIN_HEADER
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS_DLQ
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.emit import MESSAGE_HEADER, REASON_HEADER, STAGE_HEADER
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.gateways.act import Send
from spendbrake.streams.workers.notify.lane import Lane
from spendbrake.streams.workers.notify.together import Together

LOG = structlog.get_logger("spendbrake.notify")
AT_ONCE = 8
"""Calls under way to one destination. One that hangs holds up no other's."""
UNDELIVERED = "undelivered"
"""Reason of dead letters that could be read and not be brought."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all errands of a worker share.

    Attributes:
        partitions: Of the actions' log.
        clock: Epoch seconds UTC, as a lane sees it.
        chance: Draws from [0, 1).
    """

    effect: Effect
    chain: Chain
    results: Together[Result]
    send: Send
    partitions: int
    metrics: Metrics
    clock: Callable[[Lane], float]
    chance: Callable[[], float]
    backoff: Backoff | None
    slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)


class Errand(DeadLetters):
    """Brings one action to its end. It holds a slot of its destination, but not while it waits for its next try.

    Args:
        origin: `topic/partition/offset` of the action's record.
        redriven: Whether it was sent again, so that what has failed is tried once more.
    """

    def __init__(self, means: Means, lane: Lane, action: Action, origin: str, *, redriven: bool = False) -> None:
        self._means, self._lane, self._action, self._origin = means, lane, action, origin
        self._slot = means.slots.setdefault(action.destination, asyncio.Semaphore(AT_ONCE))
        self._holds, self._redriven = False, redriven

    async def run(self, *, puts_off: bool = False) -> Result:
        """Return the result when the action has ended and it is published.

        Raises:
            Later: with `puts_off`, where the next try is a long time away.
            GivenUp: its partition goes to another worker first.
            Exception: the ledger, the dead letters or the result could not be written: the process must end.
        """
        means = self._means
        await self._take()
        try:
            self._lane.check()
            result = await self._runner().run(self._action, redriven=self._redriven, puts_off=puts_off)
            # Nothing is awaited in between: what has its place in the chain is published.
            published = means.results.put(result)
        except Later:
            means.metrics.count("retries", self._action.effect)
            raise
        finally:
            self._give_back()
        await published
        means.metrics.count("results", result.effect, result.outcome)
        if result.outcome in ("failed", "unknown"):
            means.metrics.count("undelivered", result.effect, result.destination)
            about = {"destination": f"{result.effect}/{result.destination}", "outcome": result.outcome}
            LOG.error("action not brought", action=result.action, **about, reason=result.error)
        return result

    async def bury(self, action: Action, reason: str) -> None:
        """Put the action among the dead letters; return once it is safe."""
        told = ((STAGE_HEADER, action.effect), (REASON_HEADER, UNDELIVERED), (MESSAGE_HEADER, reason))
        headers = tuple((name, text.encode()) for name, text in (*told, (ORIGIN_HEADER, self._origin)))
        at = self._means.clock(self._lane)
        self._means.metrics.count("dead_letters", UNDELIVERED)
        record = OutRecord(ACTIONS_DLQ.name, action.node.encode(), encode(action), at, headers=headers)
        await self._means.send([record])

    def _runner(self) -> Runner:
        means = self._means
        return Runner(
            means.effect,
            self._lane,
            self,
            means.chain,
            clock=lambda: means.clock(self._lane),
            sleep=self._sleep,
            random=means.chance,
            backoff=means.backoff,
        )

    async def _sleep(self, seconds: float) -> None:
        self._means.metrics.count("retries", self._action.effect)
        self._give_back()
        await self._lane.pause(seconds)
        await self._take()

    async def _take(self) -> None:
        await self._slot.acquire()
        self._holds = True

    def _give_back(self) -> None:
        if self._holds:
            self._slot.release()
        self._holds = False
