"""What a surge would break: every cap held against so many times the usual burn, in the order they break. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spendbrake.schemas.money import NanoUsd

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Exposed:
    """A node with a cap.

    Attributes:
        spent: In the period so far, nano-USD.
        cap: Of the period.
        per_day: The usual burn: the mean of the last whole days.
        ends_at: Of the period, epoch seconds: a new one begins at zero.
        then: Cap of the period that follows; as this one's when None.
    """

    node: str
    spent: NanoUsd
    cap: NanoUsd
    per_day: NanoUsd
    ends_at: float
    then: NanoUsd | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """A cap that would break.

    Attributes:
        after_s: Seconds from now.
        over: What would be spent past the cap by the end of the surge or of the period, nano-USD, were it not held.
    """

    node: str
    after_s: float
    over: NanoUsd


def breaks(nodes: Iterable[Exposed], factor: float, hours: float, now: float) -> list[Break]:
    """Return the caps that a burn of `factor` times the usual breaks within `hours`, the first to break first.

    Examples:
        >>> calm = Exposed("a", spent=40, cap=100, per_day=24, ends_at=1e9)
        >>> breaks([calm], 2, 48, 0.0), breaks([calm], 1, 48, 0.0)
        ([Break(node='a', after_s=108000.0, over=36)], [])
    """
    found = list(_breaks(nodes, factor, hours * 3_600, now))
    return sorted(found, key=lambda each: (each.after_s, each.node))


def _breaks(nodes: Iterable[Exposed], factor: float, length_s: float, now: float) -> Iterator[Break]:
    for each in nodes:
        per_s = each.per_day * factor / DAY_S
        lasts_s = min(length_s, max(each.ends_at - now, 0.0))
        left = each.cap - each.spent
        fresh, rest_s = each.cap if each.then is None else each.then, length_s - lasts_s
        if left <= 0:
            yield Break(each.node, 0.0, round(per_s * lasts_s) - left)
        elif per_s * lasts_s >= left:
            yield Break(each.node, left / per_s, round(per_s * lasts_s) - left)
        elif per_s and per_s * rest_s >= fresh:
            yield Break(each.node, lasts_s + fresh / per_s, round(per_s * rest_s) - fresh)
