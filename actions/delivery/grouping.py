"""Alerts as delivery holds them: what waits, what has been told, and when a group of them is due. Pure.

An alert is held from its first news to its last. News that come before the earlier ones were told take their place; an
alert that is over before anybody was told of it is told to nobody; the end of one that was told is never muted.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spendbrake.actions.delivery.alert import is_over, labels_of
from spendbrake.actions.delivery.message import message_of, reminder_of, taken_of
from spendbrake.actions.delivery.mutes import Muted
from spendbrake.schemas.action import Action
from spendbrake.schemas.parts.delivery import Grouping
from spendbrake.schemas.wire.murmur import partition_of

RECHECK_S = 60.0
"""A mute whose end only another alert can tell is looked at again so often."""
AT_ONCE = Grouping(group_wait_s=0, group_interval_s=0)
"""What holds for an alert that is grouped with no other."""
STEADY = frozenset({"node", "team", "level", "policy", "tier", "period"})
"""Labels that an alert keeps from its first news to its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One alert at one destination.

    Attributes:
        action: Its latest news; `origin` the place of their record in the log of its node.
        heard_at: When they came, by the worker's clock.
        not_before: Of an escalation: nothing is told before, and nothing at all if it is acknowledged by then.
        told: Id of the latest news that were told; empty before the first.
        told_at: When; `times` how often it was told.
        earlier: What the receiver answered to the first news: a thread, labels.
        telling: Id of the message about several alerts that was begun and is not known to have ended.
        recheck_at: One that is muted, or whose next try is put off, is not looked at before.
        taken: Whether the receiver was told that somebody has taken the alert on.
    """

    action: Action
    heard_at: float
    origin: str = ""
    not_before: float = 0.0
    told: str = ""
    told_at: float = 0.0
    times: int = 0
    earlier: Mapping[str, Any] = field(default_factory=dict)
    telling: str = ""
    recheck_at: float = 0.0
    taken: bool = False

    @property
    def waits(self) -> bool:
        """Whether there are news that were not told."""
        return self.told != self.action.id

    @property
    def ready_at(self) -> float:
        """When its news may be told at the earliest, its group apart."""
        return max(self.heard_at, self.not_before, self.recheck_at)

    def settled(self) -> "Held":
        """Return it with its news ended, and told to nobody."""
        return replace(self, told=self.action.id, telling="", recheck_at=0.0)

    def hears(self, action: Action, now: float, origin: str) -> "Held":
        """Return it with later news."""
        return replace(self, action=action, heard_at=now, origin=origin, recheck_at=0.0)

    def has_told(self, now: float, answer: Mapping[str, Any]) -> "Held":
        """Return it with its news told."""
        earlier = self.earlier or answer
        return replace(
            self, told=self.action.id, told_at=now, times=self.times + 1, earlier=earlier, telling="", recheck_at=0.0
        )


@dataclass(frozen=True, slots=True)
class Flush:
    """What a group that is due comes to.

    Attributes:
        message: The action to be carried out; None when there is nothing to say.
        about: Keys of the alerts it tells of.
        dropped: Keys of alerts that nobody was told of and that are over, with the reason.
        later: Alerts that go on waiting, muted.
        taken: Key of the alert that the message says somebody has taken on; it tells no news of it.
    """

    message: Action | None
    about: tuple[str, ...]
    dropped: Mapping[str, str]
    later: Mapping[str, Held]
    taken: str = ""


def comes_before(origin: str, other: str) -> bool:
    """Tell whether a record at `topic/partition/offset` is older than another; of two partitions' nobody can tell.

    Examples:
        >>> comes_before("actions.v1/3/9", "actions.v1/3/42"), comes_before("actions.v1/3/9", "actions.v1/4/42")
        (True, False)
        >>> comes_before("actions.v1/3/9", "")
        False
    """
    (log, _, offset), (other_log, _, other_offset) = origin.rpartition("/"), other.rpartition("/")
    return log == other_log and offset.isdecimal() and other_offset.isdecimal() and int(offset) < int(other_offset)


def group_id(action: Action, key: str, grouping: Grouping | None) -> str:
    """Return the id of the group an alert belongs to: by its labels, or its own where nothing is grouped."""
    if grouping is None:
        return key
    labels = labels_of(action)
    return json.dumps([action.destination, *(labels[name] for name in grouping.group_by)])


def gathered_at(action: Action, grouping: Grouping | None, partitions: int) -> int | None:
    """Return the partition at which an alert's group is told; None: where its node is, as all that it is told with.

    Only labels that an alert keeps decide: groups that differ in others are told at one partition, each by itself.
    """
    if grouping is None or "node" in grouping.group_by or ("team" in grouping.group_by and action.team):
        return None
    labels = labels_of(action)
    kept = [labels[name] for name in grouping.group_by if name in STEADY]
    return partition_of(json.dumps([action.destination, *kept]).encode(), partitions)


class Group:
    """Alerts that are told together.

    Args:
        members: By alert key.
        grouping: None for an alert on its own.
        acknowledged: Whether somebody has taken an alert on, by its key.
        tells_taken: Whether the receiver wants to know of that.

    Attributes:
        first: When the first of the news came that wait; infinity where none do.
        last: When anything was told last; minus infinity before the first.
    """

    def __init__(
        self,
        members: Mapping[str, Held],
        grouping: Grouping | None,
        acknowledged: Callable[[str], bool],
        *,
        tells_taken: bool = False,
    ) -> None:
        self._members, self._acknowledged, self._tells_taken = members, acknowledged, tells_taken
        self._rule, self._repeats = grouping or AT_ONCE, grouping is not None
        told = [held.told_at for held in members.values() if held.times]
        self.last = max(told, default=-math.inf)
        waiting = [max(held.heard_at, held.not_before) for held in members.values() if held.waits]
        self.first = min(waiting, default=math.inf)

    def due_at(self, first: float | None = None, last: float | None = None) -> float:
        """Return when there is something to do next; infinity while it waits for news.

        Args:
            first: When the first of the news came that wait, `last` when any was told, if there are more alerts.
        """
        first, last = self.first if first is None else first, self.last if last is None else last
        if self._taken():
            return -math.inf
        times = [held.ready_at for held in self._members.values() if held.waits]
        opens = first + self._rule.group_wait_s if last == -math.inf else last + self._rule.group_interval_s
        due = max(min(times, default=math.inf), opens)
        return min(due, last + self._rule.repeat_interval_s) if self._firing() else due

    def flush(self, now: float, muted: Muted) -> Flush:
        """Return what is to be said now."""
        begun = sorted({held.telling for held in self._members.values() if held.telling})
        if begun:
            about = {key: held for key, held in self._members.items() if held.telling == begun[0]}
            return Flush(message_of(list(about.values()), now, begun[0]), tuple(about), {}, {})
        for key, held in self._taken().items():
            return Flush(taken_of(held.action, now), (), {}, {}, key)
        tell: dict[str, Held] = {}
        dropped: dict[str, str] = {}
        later: dict[str, Held] = {}
        for key, held in self._members.items():
            if held.waits and held.ready_at <= now:
                self._judge(key, held, now, muted, tell, dropped, later)
        if tell:
            return Flush(message_of(list(tell.values()), now), tuple(tell), dropped, later)
        again = {key: held for key, held in self._firing().items() if muted(held.action, now) is None}
        if again and now >= self.last + self._rule.repeat_interval_s:
            return Flush(reminder_of(list(again.values()), now), tuple(again), dropped, later)
        return Flush(None, (), dropped, later)

    def _judge(
        self,
        key: str,
        held: Held,
        now: float,
        muted: Muted,
        tell: dict[str, Held],
        dropped: dict[str, str],
        later: dict[str, Held],
    ) -> None:
        if held.times and is_over(held.action):
            tell[key] = held
        elif is_over(held.action):
            dropped[key] = "over before anybody was told"
        elif held.not_before and not held.times and self._acknowledged(key):
            dropped[key] = "acknowledged in time"
        elif (mute := muted(held.action, now)) is not None:
            later[key] = replace(held, recheck_at=mute.until or now + RECHECK_S)
        else:
            tell[key] = held

    def _taken(self) -> dict[str, Held]:
        """Return the alerts that somebody has taken on, unknown to the receiver, which has heard of them."""
        if not self._tells_taken:
            return {}
        return {
            key: held
            for key, held in self._members.items()
            if held.times and not held.taken and not is_over(held.action) and self._acknowledged(key)
        }

    def _firing(self) -> dict[str, Held]:
        """Return the alerts that are told again and again."""
        if not self._repeats:
            return {}
        return {
            key: held
            for key, held in self._members.items()
            if held.times and not held.waits and not self._acknowledged(key)
        }
