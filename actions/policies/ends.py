"""When rungs are due, and when tracks and their limits end by themselves. Pure arithmetic over the log's clock."""

import math

from spendbrake.actions.policies.state import Track
from spendbrake.schemas.policy import Limit, Policy

RENEWALS = 4
"""A life that findings renew is published in steps of a quarter, so that not every finding is an action."""


def climb_at(policy: Policy, track: Track) -> float | None:
    """Return when the next rung is due; None when there is none, or an incident waits to be confirmed."""
    reached = len(track.climbed)
    if not track.bound or track.resolved or reached >= len(policy.rungs):
        return None
    if track.tier is None and track.seen <= track.climbed[-1]:
        return None
    return track.climbed[-1] + policy.rungs[reached].after_s


def due_or_never(at: float | None) -> float:
    """Return a moment to compare with: infinity for none."""
    return math.inf if at is None else at


def track_end(policy: Policy, track: Track) -> float:
    """Return when a track ends by itself: a tier with its period, a request when it closes, all else after quiet."""
    if track.ends_at is not None and track.bound:
        return track.ends_at
    return _renewed(track.climbed[0], track.seen, policy.hold_s)


def limit_end(policy: Policy, track: Track, limit: Limit | None, climbed_at: float) -> float:
    """Return when a limit of a track ends, that of a tier not after its period."""
    end = track_end(policy, track)
    if limit is None or limit.ttl_s is None:
        return end
    life = _renewed(climbed_at, track.seen, limit.ttl_s)
    return min(life, end) if track.tier is not None else life


def _renewed(since: float, seen: float, life_s: float) -> float:
    """Return the end of a life that began at `since` and was renewed at `seen`, on a grid of quarter lives.

    Never earlier than `seen + life_s` and less than a quarter of a life later.

    Examples:
        >>> [_renewed(1000.0, seen, 400.0) for seen in (900.0, 1000.0, 1001.0, 1100.0, 1101.0)]
        [1400.0, 1400.0, 1500.0, 1500.0, 1600.0]
    """
    step = life_s / RENEWALS
    return since + life_s + max(0, math.ceil((seen - since) / step)) * step
