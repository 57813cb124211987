"""Burn rates of teams: looked at once in each cell of the clock's grid, for all teams at once."""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.finding import BURN_RATE, Finding, FindingState
from spendbrake.schemas.policy import BurnRate
from spendbrake.streams.budgets.allocation.burnrate import (
    DAY_S,
    HOUR_S,
    HOURS_S,
    MINUTE_S,
    MINUTES_S,
    NEAR,
    Burn,
    Window,
)
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.judge.moment import Moment

I64 = NDArray[np.int64]
Spent = tuple[I64, I64]
"""What each team has spent in a window, and the seconds it has."""


class Burning:
    """Holds all teams of a partition against the rules of burn rates.

    Args:
        grid: Where the clock's cell begins, epoch seconds: amounts are taken up to it.
    """

    def __init__(self, judge: Judge, grid: int) -> None:
        self.judge, self.grid = judge, grid
        self.state, self.rules = judge.state, judge.rules
        self.own = self.state.teams.series[: len(self.state.teams)]

    def look(self, moment: Moment) -> None:
        """Emit what stands, what goes on, and what is over."""
        for rule in self.rules.file.burn_rates:
            mine = rule.levels is None or self.rules.file.home in rule.levels
            long, short = self._spent(rule.long_s), self._spent(rule.short_s)
            for team in self._near(rule, long, short) if mine else sorted(self.state.burning):
                if self.judge.judges(team, moment.offset):
                    windows = [Window(int(spent[team]), int(length_s[team])) for spent, length_s in (long, short)]
                    self._team(team, rule, windows, moment)

    def withdraw(self, moment: Moment) -> None:
        """Resolve what stands by rules that the file has no longer; rules that it has are held against at a look."""
        for team in sorted(self.state.burning):
            if not self.judge.judges(team, moment.offset):
                continue
            view, burning = self.rules.home(self.state.teams.names[team]), self.state.heads[team].burning
            for rule, turned in withdrawn(burning, self.rules.file.burn_rates):
                self._note(team)
                self.judge.tell(team, withdrawal_of(view.id, view.id, view.name, rule, turned, moment.now), moment)

    def _near(self, rule: BurnRate, long: Spent, short: Spent) -> list[int]:
        """Return the teams that may burn so fast, and those that have."""
        budget = self.state.series.budget[self.own].astype(np.float64)
        period = np.array([self._period_s(number) for number in range(len(self.rules.calendars))], np.float64)
        limit = float(rule.times) * budget / period[self.state.series.calendar[self.own]] * NEAR
        with np.errstate(divide="ignore", invalid="ignore"):
            fast = (long[0] / long[1] >= limit) & (short[0] / short[1] >= limit) & (long[0] > 0)
        fast[[team for team in self.state.burning if team < len(fast)]] = True
        return np.flatnonzero(fast).tolist()

    def _team(self, team: int, rule: BurnRate, windows: list[Window], moment: Moment) -> None:
        head, row = self.state.heads[team], int(self.own[team])
        mine = rule.levels is None or self.rules.file.home in rule.levels
        budget, period_s = self.judge.tiering.tiers(row).budget, self._period_s(int(self.state.series.calendar[row]))
        burn = Burn(rule, budget if mine else None, (budget or 0) - moment.month(row), period_s, *windows)
        turned = turn(head.burning, burn)
        if turned is None:
            return
        self._note(team)
        view = self.rules.home(self.state.teams.names[team])
        self.judge.tell(team, finding_of(view.id, view.id, view.name, burn, *turned, self.grid, moment.now), moment)

    def _note(self, team: int) -> None:
        """Keep in mind whether a team burns too fast by any rule."""
        if any(each % 2 for each in self.state.heads[team].burning.values()):
            self.state.burning.add(team)
        else:
            self.state.burning.discard(team)

    def _spent(self, length_s: int) -> Spent:
        """Return the money of a window that ends at the grid: whole minutes, or hours and days as far as they are."""
        n, table, teams = len(self.own), self.state.series, self.state.teams
        if length_s <= MINUTES_S:
            minute, back = self.grid // MINUTE_S, length_s // MINUTE_S
            spent = teams.minutes.sums("cost", np.arange(n), minute - back, minute - 1)
            return spent, np.full(n, length_s, np.int64)
        if length_s <= HOURS_S:
            hour, begun = divmod(self.grid, HOUR_S)
            first = hour - length_s // HOUR_S + (begun > 0)
            spent = table.hours.sums("cost", self.own, first, hour)
            return spent, np.full(n, self.grid - first * HOUR_S, np.int64)
        calendar = table.calendar[self.own]
        today = self.state.periods.today(calendar)
        begins = today - length_s // DAY_S + 1
        began = np.array(
            [math.floor(c.day_start(int(p.today - length_s // DAY_S + 1)))
             for c, p in zip(self.rules.calendars, self.state.periods.current, strict=False)], np.int64,
        )  # fmt: skip
        return table.days.sums("cost", self.own, begins, today), self.grid - began[calendar]

    def _period_s(self, number: int) -> int:
        period = self.state.periods.current[number]
        begin, end = self.rules.calendars[number].period_bounds(period.month)
        return math.floor(end - begin)


def turn(burning: dict[str, int], burn: Burn) -> tuple[FindingState, int] | None:
    """Move the state of one rule on by what its windows say; return what is to be told, and its turn.

    Args:
        burning: Turns by rule: odd while it stands.
    """
    before = burning.get(burn.rule.name, 0)
    if not burn.stands and before % 2 == 0:
        return None
    if burn.stands and before % 2:
        return "update", before
    burning[burn.rule.name] = before + 1
    return ("open" if burn.stands else "resolve"), before + 1


def withdrawn(burning: dict[str, int], rules: Iterable[BurnRate]) -> list[tuple[str, int]]:
    """End what stands by rules that there are no longer; return their names, each with its turn.

    Args:
        burning: Turns by rule: odd while it stands.

    Examples:
        >>> burning = {"fast": 3, "slow": 2}
        >>> withdrawn(burning, []), burning
        ([('fast', 4)], {'fast': 4, 'slow': 2})
    """
    known = {rule.name for rule in rules}
    ended = [(name, turn + 1) for name, turn in sorted(burning.items()) if turn % 2 and name not in known]
    burning.update(ended)
    return ended


def finding_of(
    node: str, team: str, name: str, burn: Burn, state: FindingState, turn: int, grid: int, now: float
) -> Finding:
    """Return the finding that a rule's state is.

    Args:
        team: Empty for a node above the home level.
        name: Of the node, for people.
        grid: Where the clock's cell begins: what goes on is told once in each.
    """
    incident = _incident(node, burn.rule.name, turn - (state == "resolve"))
    return Finding(
        id=_digest(f"{incident}\0{state}\0{grid if state == 'update' else ''}"),
        time=now,
        team=team,
        node=node,
        severity=burn.rule.severity,
        detector=BURN_RATE,
        family=f"{BURN_RATE}/{burn.rule.name}",
        reason=burn.reason(name),
        state=state,
        incident=_digest(incident),
        turn=turn,
        evidence=burn.evidence(),
    )


def withdrawal_of(node: str, team: str, name: str, rule: str, turn: int, now: float) -> Finding:
    """Return the finding that what stood by a rule is over, since there is no such rule any more.

    It has the id that the rule's own resolution would have had: of the two there is only one.
    """
    incident = _incident(node, rule, turn - 1)
    return Finding(
        id=_digest(f"{incident}\0resolve\0"),
        time=now,
        team=team,
        node=node,
        severity="info",
        detector=BURN_RATE,
        family=f"{BURN_RATE}/{rule}",
        reason=f"{name} is no longer held against burn rate {rule}: the policy file has no such rule any more.",
        state="resolve",
        incident=_digest(incident),
        turn=turn,
        evidence={"rule": rule, "withdrawn": True},
    )


def _incident(node: str, rule: str, turn: int) -> str:
    return f"{node}\0{BURN_RATE}\0{rule}\0{turn}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
