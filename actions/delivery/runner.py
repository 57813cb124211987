"""The runner: brings one action to its end, once. It knows effects, ledger, clock and sleep as ports only.

An intent is safe in the ledger before the first try, the end of the matter before the result is returned. So after a
crash there is an intent without an end, and only then can the receiver have seen what nobody noted: a receiver that
takes ids gets the same id again, any other is asked first, and where it cannot tell the action ends as `unknown`.
A long pause is noted there, too, so that the schedule of retries survives the process that began it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.ledger import Entry, Ledger
from spendbrake.actions.delivery.port import DeadLetters, Effect, GiveUp, Later, Retry, Stopped, Superseded
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Outcome, Result

T = TypeVar("T")
LONG_S = 10.0
"""A pause that is longer is no matter of the process that takes it."""


@dataclass(slots=True)
class _Course:
    """How far an action has come.

    Attributes:
        attempts: Tries begun; `failures` of those that count against the schedule.
        in_doubt: The receiver may have the action, and is asked before the next try.
        puts_off: Whether a long pause is left to whoever comes then.
    """

    attempts: int = 0
    failures: int = 0
    in_doubt: bool = False
    puts_off: bool = False


class Runner:
    """Carries out the actions of one effect.

    Args:
        ledger: None for an effect whose actions are absolute states (`limits`): there a repetition is harmless.
        dead_letters: Where failed actions are buried before their result says so.
        chain: Of this process; it may be shared by its runners.
        clock: Wall clock, epoch seconds UTC; `sleep` waits seconds; `random` draws from [0, 1).
    """

    def __init__(
        self,
        effect: Effect,
        ledger: Ledger | None,
        dead_letters: DeadLetters,
        chain: Chain,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        backoff: Backoff | None = None,
    ) -> None:
        self._effect = effect
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._chain = chain
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._backoff = backoff or Backoff()
        self._under_way: dict[str, asyncio.Event] = {}

    async def run(self, action: Action, *, redriven: bool = False, puts_off: bool = False) -> Result:
        """Bring an action to its end and return what became of it.

        With `puts_off` a pause of more than `LONG_S` is noted in the ledger and not waited for: run it again then.

        An action that has ended is not carried out again; its end is reported once more, as the first report may
        have been lost. `redriven` tries again what failed. Calls may run side by side; those of one id follow each
        other. Only failures of the ledger and of the dead letters are raised: then the process must end, and the
        action will come again.

        Raises:
            Later: it is put off.
        """
        if action.mode == "shadow":
            return self._chain.link(action, "shadow", at=self._clock(), attempts=0)
        while (other := self._under_way.get(action.id)) is not None:
            await other.wait()
        over = self._under_way[action.id] = asyncio.Event()
        try:
            return await self._run(action, redriven, puts_off)
        finally:
            del self._under_way[action.id]
            over.set()

    async def _run(self, action: Action, redriven: bool, puts_off: bool) -> Result:
        entry = self._ledger.get(action.id) if self._ledger is not None else None
        if entry is None:
            return await self._attempt(action, _Course(puts_off=puts_off))
        if entry.outcome is None and entry.retry_at:
            if puts_off and entry.retry_at > self._clock():
                raise Later(entry.retry_at)
            course = _Course(entry.attempts, entry.attempts, in_doubt=entry.in_doubt, puts_off=puts_off)
            return await self._attempt(action, course)
        if entry.outcome is None or (redriven and entry.outcome in ("failed", "unknown")):
            in_doubt = entry.outcome != "failed" and not self._effect.takes_ids
            return await self._attempt(action, _Course(entry.attempts, in_doubt=in_doubt, puts_off=puts_off))
        return self._chain.link(
            action,
            entry.outcome,
            at=entry.at,
            attempts=entry.attempts,
            error=entry.error,
            response=entry.response,
        )

    async def _attempt(self, action: Action, course: "_Course") -> Result:
        """Try until there is an end."""
        while True:
            if not course.in_doubt and action.expires_at <= self._clock():
                return await self._end(action, "expired", course.attempts)
            try:
                if course.in_doubt:
                    found = await _guarded(self._effect.find(action))
                    if found is not False:
                        return await self._end(action, "done" if found else "unknown", course.attempts)
                    course.in_doubt = False
                    continue
                course.attempts += 1
                await self._intend(action, course.attempts)
                response = await _guarded(self._effect.carry_out(action))
                return await self._end(action, "done", course.attempts, response=response)
            except Superseded as error:
                return await self._end(action, "superseded", course.attempts, error=str(error))
            except GiveUp as error:
                return await self._fail(action, course.attempts, str(error), in_doubt=course.in_doubt)
            except Retry as error:
                end = await self._pause(action, course, error)
            if end is not None:
                return end

    async def _pause(self, action: Action, course: "_Course", error: Retry) -> Result | None:
        """Wait for the next try; return the end of an action that has none.

        Raises:
            Later: the next try is a long time away.
        """
        course.failures += 1
        course.in_doubt = course.in_doubt or (error.maybe_done and not self._effect.takes_ids)
        if self._backoff.exhausted(course.failures):
            return await self._fail(action, course.attempts, error.reason, in_doubt=course.in_doubt)
        now, pause = self._clock(), self._backoff.pause_s(course.failures, self._random(), error.after_s)
        if now + pause >= action.expires_at:
            outcome: Outcome = "unknown" if course.in_doubt else "expired"
            return await self._end(action, outcome, course.attempts, error=error.reason)
        if self._ledger is not None and course.puts_off and pause > LONG_S:
            at = now + pause
            put_off = Entry(attempts=course.attempts, at=now, error=error.reason, retry_at=at, in_doubt=course.in_doubt)
            await self._ledger.put(action.id, put_off)
            raise Later(at)
        await self._sleep(pause)
        return None

    async def _intend(self, action: Action, attempts: int) -> None:
        if self._ledger is not None:
            await self._ledger.put(action.id, Entry(attempts=attempts, at=self._clock()))

    async def _fail(self, action: Action, attempts: int, reason: str, *, in_doubt: bool) -> Result:
        """Bury an action that was not carried out; one that may have been is not brought back from there."""
        if in_doubt:
            return await self._end(action, "unknown", attempts, error=reason)
        await self._dead_letters.bury(action, reason)
        return await self._end(action, "failed", attempts, error=reason)

    async def _end(
        self,
        action: Action,
        outcome: Outcome,
        attempts: int,
        *,
        error: str | None = None,
        response: Mapping[str, Any] | None = None,
    ) -> Result:
        at = self._clock()
        if self._ledger is not None:
            entry = Entry(attempts=attempts, at=at, outcome=outcome, error=error, response=response or {})
            await self._ledger.put(action.id, entry)
        return self._chain.link(action, outcome, at=at, attempts=attempts, error=error, response=response)


async def _guarded(call: Awaitable[T]) -> T:
    """Await an effect; what it should not have raised condemns the action, not the worker."""
    try:
        return await call
    except (Retry, GiveUp, Superseded, Stopped):
        raise
    except Exception as error:
        raise GiveUp(f"{type(error).__name__}: {error}") from error
