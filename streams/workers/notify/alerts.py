"""The alerts of one partition that are held, in memory and in the ledger, and the groups they are told in."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spendbrake.actions.delivery.agenda import Agenda
from spendbrake.actions.delivery.alert import alert_key, is_over, trouble_key
from spendbrake.actions.delivery.grouping import Flush, Group, Held, gathered_at, group_id
from spendbrake.actions.delivery.mutes import muting
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Silence
from spendbrake.schemas.parts.delivery import Delivery, Grouping
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import DAY_S
from spendbrake.streams.transport.store import split_key
from spendbrake.streams.workers.notify.ledger import HELD, LedgerRow, PartitionLedger

LIFE_S = 62 * DAY_S
"""An alert is held for two periods at the longest."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What delivery goes by at a moment.

    Attributes:
        acknowledged: Whether somebody has taken trouble on, by its key (actions/delivery/alert.py: trouble_key).
    """

    delivery: Delivery = field(default_factory=Delivery)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()
    acknowledged: Callable[[str], bool] = lambda trouble: False


UNRULED = InForce()
"""Before anybody has asked."""


class Firing:
    """The alerts that fire, by node: what inhibits others. Those of other processes are read from the changelog."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, Action]] = {}
        self._rows: dict[str, dict[str, LedgerRow]] = {}

    def __call__(self, nodes: Sequence[str] | None) -> Iterator[Action]:
        """Yield the latest news of the alerts at nodes; all for None."""
        for node in self._by_node if nodes is None else nodes:
            yield from self._by_node.get(node, {}).values()

    def note(self, key: str, action: Action) -> None:
        """Take in the latest news of an alert."""
        if is_over(action):
            self.drop(key, action)
        else:
            self._by_node.setdefault(action.node, {})[key] = action

    def read(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take in rows of the changelog, of whatever process; of an alert's the one of the highest turn holds."""
        for place, value in rows:
            key, writer = split_key(place)
            if key.startswith(HELD):
                versions = self._rows.setdefault(key, {})
                before = _told_by(versions)
                if value is None:
                    versions.pop(writer, None)
                else:
                    versions[writer] = LedgerRow.parse(key, value)
                self._replace(key, before, _told_by(versions))
                if not versions:
                    del self._rows[key]

    def drop(self, key: str, action: Action) -> None:
        """Forget an alert."""
        at_node = self._by_node.get(action.node, {})
        at_node.pop(key, None)
        if not at_node:
            self._by_node.pop(action.node, None)

    def _replace(self, key: str, before: Action | None, after: Action | None) -> None:
        if before is not None:
            self.drop(key, before)
        if after is not None:
            self.note(key, after)


def _told_by(versions: Mapping[str, LedgerRow]) -> Action | None:
    newest = max(versions.values(), key=lambda row: row.turn, default=None)
    return None if newest is None or newest.held is None else newest.held.action


class Alerts:
    """Held alerts of one partition. Those of one group are told one message at a time.

    Args:
        in_force: What delivery goes by at a moment, epoch seconds UTC.
        firing: Of the whole process.
        tells_taken: Whether receivers want to know who has taken an alert on.
    """

    def __init__(
        self,
        ledger: PartitionLedger,
        in_force: Callable[[float], InForce],
        firing: Firing,
        *,
        tells_taken: bool = False,
    ) -> None:
        self._ledger, self._in_force, self._firing, self._tells_taken = ledger, in_force, firing, tells_taken
        self._held = ledger.held()
        self._agenda = Agenda(self._group)
        self._rules = UNRULED
        for key, held in self._held.items():
            firing.note(key, held.action)

    def close(self) -> None:
        """Let go of what the process knows; the ledger keeps it for whoever owns the partition next."""
        for key, held in self._held.items():
            self._firing.drop(key, held.action)

    def get(self, key: str) -> Held | None:
        """Return an alert that is held."""
        return self._held.get(key)

    def group(self, action: Action, now: float) -> str:
        """Return the id of the group that an action's alert belongs to."""
        return _group_in(self._rules_at(now), action)

    def gathered_at(self, action: Action, now: float, partitions: int) -> int | None:
        """Return the partition at which the group of an action's alert is told; None: where its node is."""
        return gathered_at(action, _grouping(self._rules_at(now), action.destination), partitions)

    def line(self, action: Action, now: float) -> tuple[str, str]:
        """Return in which line an action stands: news of a node, or of a group, follow each other."""
        if _grouping(self._rules_at(now), action.destination) is None:
            return action.node, action.destination
        return self.group(action, now), action.destination

    def hear(self, action: Action, now: float, origin: str, *, not_before: float = 0.0) -> Held | None:
        """Take news in; return the alert as it was if news of it were still to be told, which now never will be.

        The end of an alert that is not held is told: it began before this was kept.
        """
        key = alert_key(action)
        before = self._held.get(key)
        if before is None:
            times = 1 if is_over(action) else 0
            held = Held(action=action, heard_at=now, origin=origin, not_before=not_before, times=times)
        elif before.action.id == action.id:
            return None
        else:
            # News of its own are told to a receiver at once, though others' of the same trouble wait to be escalated.
            held = replace(before.hears(action, now, origin), not_before=min(before.not_before, not_before))
        self._put(key, held, now)
        return before if before is not None and before.waits else None

    def due(self, now: float) -> list[str]:
        """Return the groups that have something to do."""
        self._rules_at(now)
        return self._agenda.due(now)

    def of_group(self, group: str) -> Held | None:
        """Return one alert of a group."""
        return self._agenda.one_of(group)

    def members(self, group: str) -> dict[str, Held]:
        """Return the alerts of a group as they are, by key."""
        return self._agenda.members(group)

    def is_due(self, group: str, now: float) -> bool:
        """Say whether a group has something to do."""
        self._rules_at(now)
        return self._agenda.is_due(group, now)

    def flush(self, group: str, now: float) -> tuple[Flush, dict[str, Held]]:
        """Return what a group comes to now, and its members as they are."""
        rules, members = self._rules_at(now), self.members(group)
        muted = muting(rules.delivery, rules.silences, self._firing)
        return self._group(members).flush(now, muted), members

    async def keep(self, changed: Mapping[str, Held], now: float) -> None:
        """Keep alerts; return once they are safe."""
        for key, held in changed.items():
            self._put(key, held, now)
        await asyncio.gather(*(self.kept(key) for key in changed))

    def kept(self, key: str) -> Awaitable[None]:
        """Begin to write an alert as it is; what is returned completes once it is safe."""
        return self._ledger.hold(key, self._held[key])

    async def tell(self, keys: Iterable[str], now: float, result: Result) -> None:
        """Note what has become of the news of alerts; those that are over are let go."""
        known = {key: self._held[key] for key in keys if key in self._held}
        silent = result.outcome in ("muted", "superseded")
        told = {key: held.settled() if silent else held.has_told(now, result.response) for key, held in known.items()}
        await self.keep({key: held for key, held in told.items() if not is_over(held.action)}, now)
        await self.drop([key for key, held in told.items() if is_over(held.action)], now)

    async def drop(self, keys: Iterable[str], now: float) -> None:
        """Let go of alerts; return once that is safe."""
        gone = {key: self._held.pop(key) for key in keys}
        for key, held in gone.items():
            self._firing.drop(key, held.action)
            self._agenda.leave(self.group(held.action, now), key)
        await asyncio.gather(*(self._ledger.let_go(key, now) for key in gone))

    async def expire(self, now: float) -> None:
        """Let go of alerts whose end nobody has told for longer than any period lasts."""
        told = [key for key, held in self._held.items() if held.times and not held.waits]
        await self.drop([key for key in told if self._held[key].told_at + LIFE_S <= now], now)

    def _put(self, key: str, held: Held, now: float) -> None:
        self._held[key] = held
        self._firing.note(key, held.action)
        self._agenda.put(self.group(held.action, now), key, held)

    def _group(self, members: Mapping[str, Held]) -> Group:
        held, rules = next(iter(members.values()), None), self._rules
        return Group(
            members,
            None if held is None else _grouping(rules, held.action.destination),
            lambda key: rules.acknowledged(trouble_key(members[key].action)),
            tells_taken=self._tells_taken,
        )

    def _rules_at(self, now: float) -> InForce:
        """Return what holds now; group anew when destinations have changed, or what people say of alerts."""
        rules = self._in_force(now)
        if rules is not self._rules:
            self._rules, self._agenda = rules, Agenda(self._group)
            # What was muted may be no longer: a silence was ended before its time.
            self._held = {key: replace(held, recheck_at=0.0) for key, held in self._held.items()}
            for key, held in self._held.items():
                self._agenda.put(_group_in(rules, held.action), key, held)
        return rules


def _group_in(rules: InForce, action: Action) -> str:
    return group_id(action, alert_key(action), _grouping(rules, action.destination))


def _grouping(rules: InForce, destination: str) -> Grouping | None:
    return getattr(rules.destinations.get(destination), "grouping", None)


def parked(held: Held, name: str) -> Held:
    """Return an alert whose telling in a message of several has begun."""
    return replace(held, telling=name)
