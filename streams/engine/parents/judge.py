"""Judging parents: tiers moved by totals and by the clock, ladders, places in the tree; findings, actions, rollups out.

Nothing is judged or told of a parent up to the offset that its head row was stored at: it was before a crash.
"""

import heapq
import math
from collections.abc import Iterable

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.reading import Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import month_over_month_base
from spendbrake.streams.budgets.calendar import day_id, day_number
from spendbrake.streams.budgets.tiers import Crossing
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.tiering import finding_of, set_limits
from spendbrake.streams.engine.parents.burning import cell_of, look, withdraw
from spendbrake.streams.engine.parents.cells import month_id, month_number
from spendbrake.streams.engine.parents.desk import obey, take
from spendbrake.streams.engine.parents.hop import enter, leave, note, tell, tells_at, wants_at
from spendbrake.streams.engine.parents.merge import Change, close, expire
from spendbrake.streams.engine.parents.standing import forecast_of, standing_of, top_of
from spendbrake.streams.engine.parents.state import Book, Parent, ParentsState
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period


class Judge:
    """Judges the parents of one partition, record by record.

    Args:
        secret: Signs rollups.
    """

    def __init__(self, state: ParentsState, emit: Emitter, secret: bytes) -> None:
        self.state, self.emit, self._secret = state, emit, secret

    def come(self, rules: Rules, before: Rules, offset: int, now: float) -> None:
        """Come to a record: a new version may be in force at it, a new day may have begun.

        Args:
            before: Rules at the record before.
        """
        self.rules, self.now = rules, now
        self.stamp = Stamp(epoch=self.state.epoch, offset=offset)
        state = self.state
        if state.ruled_by is rules and now < state.tomorrow_at:
            return
        if state.ruled_by is None:
            self._prime(before)
        if state.ruled_by is not rules:
            state.ruled_by = rules
            state.periods.current.clear()
            state.numbers.clear()
        self._roll()
        for _, parent in sorted(state.parents.items()):
            self._begin(parent)

    def parent(self, node: str) -> Parent:
        """Return the parent with this id, with its place in the tree when it is new."""
        parent = self.state.parents.get(node)
        if parent is None:
            parent = self.state.parents[node] = Parent(node)
            self._begin(parent)
        return parent

    def period(self, key: str) -> Period:
        """Return where the calendar with this key stands.

        Raises:
            ValueError: there is no such calendar.
        """
        number = self.state.numbers.get(key)
        if number is None:
            number = self.state.numbers[key] = self.rules.calendar_named(key)
        if number >= len(self.state.periods.current):
            self._roll()
        return self.state.periods.current[number]

    def changed(self, parent: Parent, key: str, change: Change) -> None:
        """Judge a parent whose children have told of spend by the calendar `key`."""
        if not self._judgeable(parent):
            return
        self.state.dirty_heads.add(parent.id)
        if parent.above is not None:
            note(parent, key, change)
        if key == parent.calendar:
            self._advance(parent, change)
        self._wake_at(parent)

    def order(self, parent: Parent, command: Command) -> None:
        """Obey a command: at the desk of a parent, or to its own limits.

        Raises:
            BadRecord: it is refused, and why.
        """
        if not self._judgeable(parent):
            return
        period = self.period(parent.calendar)
        if command.kind != "request" and command.node == parent.id:
            findings, actions = obey(parent, command, self.rules, period, self.now, self.stamp)
            self._answer(parent, findings, actions)
            self._measure(parent)
        else:
            findings, records = take(parent, command, self.rules, period, self.now, self._secret)
            self._send(records, parent)
            self._answer(parent, findings)
        self._wake_at(parent)

    def wake(self) -> None:
        """Let ladders come due and tell parents above what they wait for."""
        wakes = self.state.wakes
        while wakes and wakes[0][0] <= self.now:
            parent = self.state.parents[heapq.heappop(wakes)[1]]
            parent.wakes_at = math.inf
            if not self._judgeable(parent):
                self._push(parent, math.nextafter(self.now, math.inf))
                continue
            if parent.due <= self.now:
                self._tick(parent)
            if parent.tiers.expire(self.now):
                self._measure(parent)
            view = self._view(parent.id)
            if view is not None and tells_at(parent) <= self.now:
                self._send(tell(parent, view, self.rules, self.now, self.stamp, self._secret), parent)
            self._wake_at(parent)

    def burn(self) -> None:
        """Hold all parents against the rules of burn rates, once in each cell of the clock's grid."""
        grid, before = cell_of(self.now), self.state.grid
        if grid == before:
            return
        self.state.grid = grid
        for _, parent in sorted(self.state.parents.items()) if self.rules.file.burn_rates else ():
            view = self._view(parent.id)
            if view is not None and self._judgeable(parent):
                self._answer(parent, look(parent, view, self.rules, self.period(parent.calendar), self.now))
                self._wake_at(parent)

    # --- the clock and the tree --------------------------------------------------------------------

    def _roll(self) -> None:
        state = self.state
        state.periods.roll(self.rules.calendars, self.now)
        state.tomorrow_at = min((p.tomorrow_at for p in state.periods.current), default=-math.inf)

    def _prime(self, rules: Rules) -> None:
        """Set the limits that are not stored: a month that ends is held against those it had."""
        for node, parent in self.state.parents.items():
            set_limits(parent.tiers, _above_home(rules, node), rules)

    def _begin(self, parent: Parent) -> None:
        """Set what a parent is measured by, and begin its day."""
        view = self._view(parent.id)
        for key in parent.totals.books:
            close(parent, key, self.period(key))
        expire(parent, self.now)
        if not self._judgeable(parent):
            set_limits(parent.tiers, view, self.rules)
            return
        self.state.dirty_heads.add(parent.id)
        self._place(parent, view)
        if view is not None or not parent.calendar:
            kept = view or self.rules.tree.listed[self.rules.tree.root]
            parent.calendar = self.rules.calendars[self.rules.calendar(kept)].key
        self._start_day(parent, view)
        self._answer(parent, withdraw(parent, view, self.rules, self.now))
        if view is None:
            for action in self.rules.ladder.retire(parent.ladder, parent.id, self.now, self.stamp):
                self.emit.action(action, self.state.number)
        self._adopt(parent)
        self._tick(parent)
        self._wake_at(parent)

    def _place(self, parent: Parent, view: NodeView | None) -> None:
        """Move a parent to where the tree has it now; what was spent so far stays where it was."""
        listed, above = view is not None, view.parent if view is not None else None
        if (parent.listed, parent.above) == (listed, above):
            return
        if parent.totals.books:
            self._send(leave(parent, self.rules, self.now, self.stamp, self._secret), parent)
        enter(parent, above)
        parent.listed = listed

    def _start_day(self, parent: Parent, view: NodeView | None) -> None:
        period, book, tiers = self.period(parent.calendar), parent.totals.book(parent.calendar), parent.tiers
        crossings = tiers.roll(
            period.month,
            day_id(period.today),
            forecast=forecast_of(book, period),
            previous=self._previous(book, period),
            before=book.months[month_number(period.month) - 1],
            month_total=book.months[month_number(tiers.period)] if tiers.period else 0,
            day_total=book.days[day_number(tiers.day)] if tiers.day else 0,
        )
        set_limits(tiers, view, self.rules)
        self._crossings(parent, crossings)
        self._measure(parent)

    def _measure(self, parent: Parent) -> None:
        """Hold the totals of the running month and day against limits that may have changed."""
        period, book = self.period(parent.calendar), parent.totals.book(parent.calendar)
        parent.tiers.set_apart(book.apart[month := month_number(period.month)])
        self._crossings(parent, parent.tiers.advance(book.months[month], book.days[period.today]))

    def _previous(self, book: Book, period: Period) -> int | None:
        """Return the month-over-month base; a month is known only if the parent is older than it."""
        calendar = self.rules.calendars[self.state.periods.current.index(period)]
        first, end = calendar.period_days(month_id(month_number(period.month) - 1))
        if book.first_day is None or book.first_day > first:
            return None
        return month_over_month_base([book.days[day] for day in range(first, end)], period.today - period.first)

    def _adopt(self, parent: Parent) -> None:
        """Put tiers that stand before policies that were not there when they were crossed."""
        period, book = self.period(parent.calendar), parent.totals.book(parent.calendar)
        for crossing in parent.tiers.standing(book.months[month_number(period.month)], book.days[period.today]):
            standing = self._standing(parent)
            finding = finding_of(crossing, standing, self._top(parent))
            actions = self.rules.ladder.adopt(parent.ladder, finding, standing, self.stamp)
            self.emit.actions(actions, self.state.number)

    def _tick(self, parent: Parent) -> None:
        actions = self.rules.ladder.tick(parent.ladder, self.now, self.stamp, lambda _: self._standing(parent))
        for action in actions:
            self.emit.action(action, self.state.number)
        self._due(parent)
        parent.due = max(parent.due, math.nextafter(self.now, math.inf))  # never at the same moment again

    # --- totals ------------------------------------------------------------------------------------

    def _advance(self, parent: Parent, change: Change) -> None:
        period, book, tiers = self.period(parent.calendar), parent.totals.book(parent.calendar), parent.tiers
        number = month_number(period.month)
        month, day = book.months[number], book.days[period.today]
        moved = tiers.set_apart(book.apart[number]) or change.fell
        if moved or month >= tiers.next_threshold_month() or day >= tiers.next_threshold_day():
            self._crossings(parent, tiers.advance(month, day))
        if number - 1 in change.months:
            self._crossings(parent, tiers.advance_ended(month_id(number - 1), book.months[number - 1]))

    def _crossings(self, parent: Parent, crossings: list[Crossing]) -> None:
        if not crossings:
            return
        standing, top = self._standing(parent), self._top(parent)
        self._answer(parent, [finding_of(crossing, standing, top) for crossing in crossings])

    def _answer(self, parent: Parent, findings: Iterable[Finding], actions: Iterable[Action] = ()) -> None:
        """Publish findings and what follows from them, beside other actions."""
        standing, more = self._standing(parent), list(actions)
        for finding in findings:
            self.emit.finding(finding)
            more += self.rules.ladder.answer(parent.ladder, finding, standing, self.stamp)
        for action in more:
            self.emit.action(action, self.state.number)
        self._due(parent)

    def _standing(self, parent: Parent) -> Standing:
        view, period = self._view(parent.id), self.period(parent.calendar)
        return standing_of(parent, view, period, self.state.number, self.now)

    def _top(self, parent: Parent) -> list[Contributor]:
        return top_of(parent, self.rules, self.period(parent.calendar))

    # --- heads -------------------------------------------------------------------------------------

    def _view(self, node: str) -> NodeView | None:
        """Return the node in the tree, None for one that it does not list above the home level."""
        return _above_home(self.rules, node)

    def _judgeable(self, parent: Parent) -> bool:
        return self.stamp.offset > parent.judged

    def _send(self, records: list, parent: Parent) -> None:  # type: ignore[type-arg]
        self.emit.outcome.records += records
        self.state.dirty_heads.add(parent.id)

    def _due(self, parent: Parent) -> None:
        """Note when the ladder wants the clock next; what is due by now is let come due at this record's end."""
        self.state.dirty_heads.add(parent.id)
        parent.due = parent.ladder.next_due() or math.inf

    def _wake_at(self, parent: Parent) -> None:
        at = wants_at(parent)
        if at < parent.wakes_at:
            self._push(parent, at)

    def _push(self, parent: Parent, at: float) -> None:
        parent.wakes_at = at
        heapq.heappush(self.state.wakes, (at, parent.id))


def _above_home(rules: Rules, node: str) -> NodeView | None:
    view = rules.tree.view(node)
    return view if view is not None and not view.home else None
