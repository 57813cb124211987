"""A test of one destination: its alert is opened, gets worse, is acknowledged and is over, by its real effect.

Each news goes the way of all news (the runner, the effect, its secrets), with a ledger that is forgotten. What it is
written to is asked by an effect that is made anew, as a worker that has been started after a crash would ask.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spendbrake.actions.delivery.alert import is_over
from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.ledger import MemoryLedger
from spendbrake.actions.delivery.message import message_of, taken_of
from spendbrake.actions.delivery.port import DeadLetters, Effect, GiveUp, Retry
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.actions.delivery.runner import Runner
from spendbrake.actions.effects.messages.refusals import cause_of
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import FindingState
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.schemas.result import Result
from spendbrake.streams.secrets import MASK
from spendbrake.streams.workers.notify.building import Tools, Unusable, effect_of
from spendbrake.streams.workers.trial.report import State, Step
from spendbrake.streams.workers.trial.story import Story
from spendbrake.streams.workers.trial.words import hint, introduction, receipt

Hold = Callable[[], Awaitable[None]]
FIRST_LOOK_S, LONGEST_LOOK_S = 0.25, 5.0
"""Pauses between looks for what was written, doubling: an index lags."""
LOST = {
    "slack": "not found there: after a crash a worker would post it twice (is the clock right?)",
    "ticket": "not found there: the next news would open another ticket",
    "alertmanager": "it does not show the alert as it was told",
}
ENDS = {"expired": "no success in {0:g} s: {1}", "unknown": "it may have arrived: {1}"}
NOTHING = "nothing was opened"
TRIES = 3
"""Of one news: whoever waits for the answer would rather know."""
SHORT = 4
"""Characters of a secret that is none: what is as short is not looked for in what is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What a test takes its time from.

    Attributes:
        clock: Wall clock, epoch seconds UTC; `timer` seconds, for measuring; `sleep` waits seconds.
        chance: Draws from [0, 1).
        timeout_s: For a step, with all pauses that its receiver asks for.
    """

    clock: Callable[[], float]
    timer: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    chance: Callable[[], float]
    timeout_s: float = 60.0


class Course:
    """Tests one destination of a `type`; `run` names the test.

    Args:
        run: Of this test alone; it enters all ids.
        contacts: Whom a mail goes to where the destination names nobody.
    """

    def __init__(
        self, name: str, place: Destination, tools: Tools, ways: Ways, run: str, contacts: Sequence[str] = ()
    ) -> None:
        self.run, self.type = run, place.type
        self._name, self._place, self._ways = name, place, ways
        self._secrets: set[str] = set()
        self._tools = replace(tools, secrets=self._noting(tools))
        self._story, self._chain = Story(name, place, run, contacts), Chain(f"test-{run}")
        self._account: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}
        self._latest: Action | None = None

    async def steps(self, hold: Hold | None = None) -> AsyncIterator[Step]:
        """Yield each step as it has ended. What may have been opened is ended, whatever fails in between.

        Args:
            hold: Waited for before the alert is acknowledged and over.
        """
        try:
            made = [effect_of(self._name, self._place, self._tools) for _ in range(2)]
        except Unusable as error:
            yield Step(name="settings", state="failed", said=self._clean(str(error)))
            return
        try:
            async for step in self._through(Observed(made[0]), made[1], hold):
                yield replace(step, said=self._clean(step.said), answer=self._clean(step.answer))
        finally:
            for effect in made:
                if (close := getattr(effect, "aclose", None)) is not None:
                    await close()

    async def _through(self, effect: "Observed", looker: Any, hold: Hold | None) -> AsyncIterator[Step]:
        if hasattr(effect.inner, "introduce"):
            step = await self._introduce(effect.inner)
            yield step
            if step.state == "failed":
                return
        opened = await self._news(effect, looker, "opened", "open")
        yield opened
        self._earlier = dict(opened.answer)
        goes_on = opened.state == "ok" or bool(opened.answer)
        if goes_on:
            yield await self._news(effect, looker, "worse", "update")
        else:
            yield Step(name="worse", state="skipped", said=NOTHING)
        if goes_on and hold is not None:
            await hold()
        if goes_on and effect.tells_taken and self._latest is not None:
            yield await self._tell(effect, looker, "acknowledged", taken_of(self._latest, self._ways.clock()))
        if goes_on or (effect.maybe_done and effect.takes_ids):
            yield await self._news(effect, looker, "over", "resolve")
        else:
            yield Step(name="over", state="skipped", said=NOTHING)

    async def _news(self, effect: "Observed", looker: Any, name: str, state: FindingState) -> Step:
        """Tell the alert's next news as delivery does: with what was answered to its first."""
        now = self._ways.clock()
        self._latest = self._story.news(state, now)
        held = Held(action=self._latest, heard_at=now, earlier=self._earlier)
        return await self._tell(effect, looker, name, message_of([held], now))

    async def _introduce(self, effect: Any) -> Step:
        began = self._ways.timer()
        try:
            self._account = dict(await effect.introduce(self._name))
        except Exception as error:  # as when it is looked for a news
            said = self._wrong(str(error) if isinstance(error, GiveUp | Retry) else cause_of(error))
            return Step(name="account", state="failed", said=said, ms=self._ms(began), tries=1)
        said = introduction(self._account)
        return Step(name="account", state="ok", said=said, ms=self._ms(began), tries=1, answer=self._account)

    async def _tell(self, effect: "Observed", looker: Any, name: str, action: Action) -> Step:
        """Carry one news out as a worker does, and look whether it is there."""
        longest_s = self._ways.timeout_s
        began, ends = self._ways.timer(), self._ways.clock() + longest_s
        action = replace(action, expires_at=ends)
        try:
            async with asyncio.timeout(longest_s):
                result = await self._runner(effect).run(action)
        except TimeoutError:
            said = ENDS["unknown"].format(longest_s, f"no answer in {longest_s:g} s")
            return Step(name=name, state="failed", said=said, ms=self._ms(began))
        ms = self._ms(began)
        if result.outcome != "done":
            said = self._wrong(ENDS.get(result.outcome, "{1}").format(longest_s, result.error))
            return Step(name=name, state="failed", said=said, ms=ms, tries=result.attempts)
        if result.response.get("ticket", "") is None:
            return Step(name=name, state="skipped", said=NOTHING, ms=ms, tries=result.attempts)
        found, why = await self._look(looker, action, ends)
        return self._told(name, action, result, found, why, ms)

    def _told(self, name: str, action: Action, result: Result, found: bool | None, why: str, ms: int) -> Step:
        answer = dict(result.response)
        notes = ["no answer"]
        if answer:
            notes = [receipt(self._place, answer, self._account, over=is_over(action))]
        if result.attempts > 1:
            notes.append(f"{result.attempts} tries")
        if found is not None and action.effect in LOST:
            notes.append("found there" if found else LOST[action.effect])
        elif why:
            notes.append(f"could not be looked for: {why}")
        state: State = "failed" if found is False or answer.get("refused") else "ok"
        return Step(name=name, state=state, said="; ".join(notes), ms=ms, tries=result.attempts, answer=answer)

    async def _look(self, looker: Any, action: Action, ends: float) -> tuple[bool | None, str]:
        """Return whether the receiver shows a news; None where it cannot be asked, with the reason if there is one."""
        pause = FIRST_LOOK_S
        while True:
            found, why, after_s = None, "", 0.0
            try:
                found = await looker.find(action)
            except Retry as error:
                why, after_s = error.reason, error.after_s or 0.0
            except Exception as error:  # whoever answers is not the API that is configured, or does not let us look
                return None, str(error) if isinstance(error, GiveUp) else cause_of(error)
            if found or (found is None and not why):
                return found, ""
            wait = max(pause, after_s)
            if self._ways.clock() + wait >= ends:
                return found, why
            await self._ways.sleep(wait)
            pause = min(2 * pause, LONGEST_LOOK_S)

    def _runner(self, effect: "Observed") -> Runner:
        ways = self._ways
        return Runner(
            effect,
            MemoryLedger(),
            _Nowhere(),
            self._chain,
            clock=ways.clock,
            sleep=ways.sleep,
            random=ways.chance,
            backoff=Backoff(attempts=TRIES),
        )

    def _noting(self, tools: Tools) -> Callable[[str], Any]:
        def look_up(variable: str) -> Any:
            value = tools.secrets(variable)
            if value is not None:
                whole = value.get_secret_value()
                parts = {whole, *(part.strip() for part in whole.split(","))}
                self._secrets |= {part for part in parts if len(part) >= SHORT}
            return value

        return look_up

    def _clean(self, told: Any) -> Any:
        """Return texts without any secret that this test has read: a receiver may send back what it was sent."""
        if isinstance(told, Mapping):
            return {name: self._clean(value) for name, value in told.items()}
        if isinstance(told, list | tuple):
            return [self._clean(value) for value in told]
        if not isinstance(told, str):
            return told
        for secret in sorted(self._secrets, key=len, reverse=True):
            told = told.replace(secret, MASK)
        return " ".join(told.split())

    def _wrong(self, text: str) -> str:
        mend = hint(self._place, text)
        return f"{text} ({mend})" if mend else text

    def _ms(self, began: float) -> int:
        return round(1_000 * (self._ways.timer() - began))


class Observed(Effect):
    """An effect, and whether its receiver may have what it has not said to have."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.maybe_done = inner, False
        self.name, self.takes_ids = inner.name, inner.takes_ids
        self.tells_taken = bool(getattr(inner, "tells_taken", False))

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Do it; errors are those of the effect."""
        try:
            told: Mapping[str, Any] = await self.inner.carry_out(action)
            return told
        except Retry as error:
            self.maybe_done |= error.maybe_done
            raise
        except asyncio.CancelledError:
            self.maybe_done = True
            raise

    async def find(self, action: Action) -> bool | None:
        """Ask the effect."""
        found: bool | None = await self.inner.find(action)
        return found


class _Nowhere(DeadLetters):
    """What could not be told is told by its step."""

    async def bury(self, action: Action, reason: str) -> None:
        """Keep nothing."""
