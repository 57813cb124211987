"""What a node may spend in its month beyond what the file says: the rest of the month before, and grants. Pure."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any, TypeAlias

from spendbrake.schemas.money import NanoUsd
from spendbrake.streams.budgets.calendar import period_after

AllowanceState: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Grant:
    """A top-up of one month.

    Attributes:
        id: Given out once: a grant that comes again changes nothing.
        amount: nano-USD.
        period: The month that it was given in; it ends with it.
        expires_at: Epoch seconds UTC at which it ends all the same.
        ended: Whether it has; it is remembered until the end of the next month, so that it cannot be given anew.
    """

    id: str
    amount: NanoUsd
    period: str
    expires_at: float
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """What goes over from a month: what is left of its allocation (nano-USD), up to so many percent of it."""

    allocation: NanoUsd
    percent: int


def carried_over(allocation: NanoUsd | None, spent: NanoUsd, percent: int) -> NanoUsd:
    """Return what goes over into the next month: what is left, up to so many percent of the allocation.

    Examples:
        >>> carried_over(500, 470, 10), carried_over(500, 300, 10), carried_over(500, 700, 10)
        (30, 50, 0)
    """
    if allocation is None:
        return 0
    return min(max(allocation - spent, 0), allocation * percent // 100)


class Allowance:
    """The part of one node's limits that is not in the file.

    Attributes:
        rollover: Carried over from the month before, nano-USD: worked out when a month begins, and by `carry` anew.
        share: That it is worked out by, kept with the month; None where nothing goes over.
    """

    def __init__(self) -> None:
        self.rollover: NanoUsd = 0
        self.share: Share | None = None
        self._grants: dict[str, Grant] = {}

    def __iter__(self) -> Iterator[Grant]:
        """Yield the grants in force, in the order they were given."""
        return (grant for grant in self._grants.values() if not grant.ended)

    @property
    def extra(self) -> NanoUsd:
        """What adds to budget and allocation, nano-USD."""
        return self.rollover + self.granted

    @property
    def granted(self) -> NanoUsd:
        """What grants alone add, nano-USD."""
        return sum(grant.amount for grant in self)

    def give(self, grant: Grant) -> bool:
        """Take a grant in; False if it had been given already."""
        if grant.id in self._grants:
            return False
        self._grants[grant.id] = grant
        return True

    def withdraw(self, grant: str) -> bool:
        """End a grant; False if it is not in force."""
        found = self._grants.get(grant)
        if found is None or found.ended:
            return False
        self._grants[grant] = replace(found, ended=True)
        return True

    def expire(self, now: float) -> bool:
        """End the grants whose time is over; tell whether there were any."""
        over = [grant.id for grant in self if grant.expires_at <= now]
        for grant in over:
            self.withdraw(grant)
        return bool(over)

    def next_expiry(self) -> float | None:
        """Return when the next grant ends, epoch seconds; None when none is in force."""
        return min((grant.expires_at for grant in self), default=None)

    def carry(self, spent: NanoUsd) -> bool:
        """Carry over what the month before has left, now that it has come to `spent`; tell whether that is news."""
        before, share = self.rollover, self.share
        self.rollover = 0 if share is None else carried_over(share.allocation, spent, share.percent)
        return self.rollover != before

    def roll(self, period: str, share: Share | None, spent: NanoUsd) -> None:
        """Begin a month: grants of the one before end, those of the month before that are forgotten."""
        self.share, before = share, period_after(period, -1)
        self.carry(spent)
        kept = (grant for grant in self._grants.values() if grant.period >= before)
        self._grants = {grant.id: grant if grant.period >= period else replace(grant, ended=True) for grant in kept}

    def to_state(self) -> AllowanceState:
        """Return the state as numbers and text."""
        share = None if self.share is None else list(astuple(self.share))
        return [self.rollover, [list(astuple(grant)) for grant in self._grants.values()], share]

    @classmethod
    def from_state(cls, state: AllowanceState) -> "Allowance":
        """Return the allowance that `to_state` told of."""
        allowance = cls()
        allowance.rollover, grants, *more = state  # rows of before knew no share: what was carried over stays
        allowance.share = Share(*more[0]) if more and more[0] is not None else None
        allowance._grants = {fields[0]: Grant(*fields) for fields in grants}
        return allowance
