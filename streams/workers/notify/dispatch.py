"""What becomes of news: told now, later, together with others, or not at all. It brings nothing itself."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.delivery.grouping import Held, comes_before
from spendbrake.actions.delivery.ledger import Entry
from spendbrake.actions.delivery.message import escalated
from spendbrake.actions.delivery.port import Later
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import (
    GATHERED_ESCALATION,
    GATHERED_HEADER,
    GATHERED_NEWS,
    ORIGIN_HEADER,
    REDRIVEN_HEADER,
)
from spendbrake.schemas.result import Outcome, Result
from spendbrake.schemas.topics import ACTIONS
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.workers.notify.alerts import Alerts, InForce, parked
from spendbrake.streams.workers.notify.errand import Errand, Means
from spendbrake.streams.workers.notify.lane import Lane

Safe = list[Awaitable[None]]


class Dispatch:
    """The alerts of one lane on their way. Calls for one group must follow each other."""

    def __init__(self, means: Means, lane: Lane, alerts: Alerts) -> None:
        self._means, self._lane, self.alerts = means, lane, alerts

    async def hear(
        self, action: Action, origin: str, safe: Safe, *, redriven: bool = False, gathered: bool = False
    ) -> None:
        """Take news in, and tell them if they are due; return once they are told, sent on, or about to be kept.

        News whose end is known, that are expired, shadows, or sent again by hand have no part in groups.

        Args:
            safe: Takes what completes once they are safe in the ledger: others of their group do not wait for it.
            gathered: They were sent on to here.

        Raises:
            GivenUp: the partition goes to another worker first.
        """
        now = self._now()
        if not gathered and (place := self._elsewhere(action, now)) is not None:
            again = ((REDRIVEN_HEADER, b"1"),) if redriven else ()
            await self._send_on(action, action, origin, place, ((GATHERED_HEADER, GATHERED_NEWS), *again))
            return
        entry = self._lane.get(action.id)
        ended = entry is not None and entry.outcome is not None
        if redriven or ended or action.mode == "shadow" or action.expires_at <= now:
            result = await self._bring(action, origin, redriven=redriven)
            await self._note(action, origin, result)
            return
        await self._hear(action, origin, now)
        await self._settle(action, now, safe)

    async def hear_of(self, action: Action, origin: str, rules: InForce, safe: Safe, *, gathered: bool = False) -> None:
        """Take in news for others: here they are told only if nobody acknowledges them in time.

        Of trouble that this destination hears of by itself there is nothing to escalate.
        """
        rule = rules.delivery.escalation
        news = self._escalated(action, rules)
        if rule is None or news is None:
            return
        if not gathered and (place := self._elsewhere(news, self._now())) is not None:
            await self._send_on(news, action, origin, place, ((GATHERED_HEADER, GATHERED_ESCALATION),))
            return
        held, now = self.alerts.get(alert_key(news)), self._now()
        known = self._lane.get(news.id)
        if (known is not None and known.outcome is not None) or (held is not None and not held.not_before):
            return
        if is_over(action) if held is not None else not is_over(action) and action.severity in rule.severities:
            await self._hear(news, origin, now, not_before=action.time + rule.after_s)
            await self._settle(news, now, safe)

    def line(self, action: Action, now: float, *, gathered: bool = False) -> tuple[str, str]:
        """Return in which line news stand: in that of their group here, or of their node on their way elsewhere."""
        if not gathered and self._elsewhere(action, now) is not None:
            return action.node, action.destination
        return self.alerts.line(action, now)

    def line_of(self, action: Action, rules: InForce, now: float, *, gathered: bool = False) -> tuple[str, str]:
        """Return in which line news for others stand: in that of what they are here."""
        return self.line(self._escalated(action, rules) or action, now, gathered=gathered)

    async def flush(self, group: str) -> None:
        """Tell what is due of a group.

        Raises:
            GivenUp: the partition goes to another worker first.
        """
        now = self._now()
        flush, members = self.alerts.flush(group, now)
        await self.alerts.keep(flush.later, now)
        await asyncio.gather(*(self._end(members[key].action, "muted", why) for key, why in flush.dropped.items()))
        await self.alerts.drop(flush.dropped, now)
        if flush.message is None:
            return
        if flush.taken:
            await self._bring(flush.message, members[flush.taken].origin)
            await self.alerts.keep({flush.taken: replace(members[flush.taken], taken=True)}, self._now())
            return
        about = {key: members[key] for key in flush.about}
        if len(about) > 1:
            begun = {key: parked(held, flush.message.id) for key, held in about.items() if held.waits}
            await self.alerts.keep(begun, now)
        first = next(iter(about.values()))
        try:
            result = await self._bring(flush.message, first.origin, puts_off=any(held.waits for held in about.values()))
        except Later as later:
            await self._put_off(group, later.at)
            return
        await self._end_members(flush.message, about.values(), result)
        await self.alerts.tell(about, self._now(), result)

    def _elsewhere(self, action: Action, now: float) -> int | None:
        """Return the other partition at which an alert is told with its group; None: at this one.

        Where it began it stays, whatever the policy says by then: there its thread is.
        """
        key, ledger = alert_key(action), self._lane.ledger
        place = ledger.place(key)
        if place is None and action.mode != "shadow" and self.alerts.get(key) is None and not ledger.get(action.id):
            place = self.alerts.gathered_at(action, now, self._means.partitions)
        return None if place == ledger.partition else place

    async def _send_on(
        self, news: Action, action: Action, origin: str, place: int, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        """Send an action to the partition at which `news` of it are told; return once it is there.

        After a death it goes there once more; its origin tells how old it is.
        """
        self._lane.check()
        await self._lane.ledger.pin(alert_key(news), place, self._now())
        headers = (*headers, (ORIGIN_HEADER, origin.encode()))
        record = OutRecord(ACTIONS.name, action.node.encode(), encode(action), action.time, place, headers)
        await self._means.send([record])
        self._means.metrics.count("gathered", self._means.effect.name)

    def _escalated(self, action: Action, rules: InForce) -> Action | None:
        rule = rules.delivery.escalation
        if rule is None or action.destination == rule.to:
            return None
        return escalated(action, rule, self._means.effect.name)

    async def _note(self, action: Action, origin: str, result: Result) -> None:
        """Note the end of news that had no part in a group, or had ended before this process began."""
        key = alert_key(action)
        held = self.alerts.get(key)
        if held is None:
            return
        if held.action.id == action.id:
            await self.alerts.tell([key], self._now(), result)
        elif is_over(action) and comes_before(held.origin, origin):
            await self.alerts.drop([key], self._now())

    async def _hear(self, action: Action, origin: str, now: float, *, not_before: float = 0.0) -> None:
        held = self.alerts.get(alert_key(action))
        if held is not None and held.action.id != action.id and comes_before(origin, held.origin):
            await self._end(action, "superseded", "later news came before it was told")
            return
        before = self.alerts.hear(action, now, origin, not_before=not_before)
        if before is not None and not (is_over(action) and not before.times):
            await self._end(before.action, "superseded", "later news came before it was told")
        elif before is not None:
            await self._end(before.action, "muted", "over before anybody was told")

    async def _settle(self, action: Action, now: float, safe: Safe) -> None:
        group, key = self.alerts.group(action, now), alert_key(action)
        if self.alerts.is_due(group, now):
            await self.flush(group)
        held = self.alerts.get(key)
        if held is not None and held.waits:
            safe.append(self.alerts.kept(key))

    async def _put_off(self, group: str, at: float) -> None:
        """Let the news of a group wait for their next try, in the ledger: a later owner goes on with it."""
        waiting = {key: held for key, held in self.alerts.members(group).items() if held.waits}
        await self.alerts.keep({key: replace(held, recheck_at=at) for key, held in waiting.items()}, self._now())

    async def _bring(self, action: Action, origin: str, *, redriven: bool = False, puts_off: bool = False) -> Result:
        return await Errand(self._means, self._lane, action, origin, redriven=redriven).run(puts_off=puts_off)

    async def _end_members(self, message: Action, about: Iterable[Held], result: Result) -> None:
        """Report the news that a message about several has told."""
        news = [held.action for held in about if held.waits and held.action.id != message.id]
        await asyncio.gather(*(self._end(each, result.outcome, result.error, {"message": message.id}) for each in news))

    async def _end(
        self, action: Action, outcome: Outcome, error: str | None, response: Mapping[str, str] | None = None
    ) -> None:
        """Report an end that no effect has brought about, then keep it: reported twice is better than never."""
        at, means = self._now(), self._means
        await means.results.put(means.chain.link(action, outcome, at=at, attempts=0, error=error, response=response))
        means.metrics.count("results", action.effect, outcome)
        await self._lane.put(action.id, Entry(attempts=0, at=at, outcome=outcome, error=error, response=response or {}))

    def _now(self) -> float:
        return self._means.clock(self._lane)
