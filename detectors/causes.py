"""What a finding says about who carries the money. Words and shares; no thresholds on scores."""

from typing import Any

from spendbrake.schemas.money import NANO, NanoUsd, usd_text
from spendbrake.schemas.reading import Context

CARRIES = 0.8
"""A node that carries this part of the excess is the one a finding points at."""
MOST = 0.5
SPAN_H = 0.25
TOP = 5


def carrier(context: Context, usual_usd_h: float) -> str | None:
    """Return the API key that carries the excess of the last 15 minutes almost alone, if one does.

    What a key usually spends is not known: the heaviest is taken for the cause only if it also spends most of all.
    """
    keys = [c for c in context.top if c.kind == "key"]
    total = sum(c.cost for c in keys)
    excess = total - round(usual_usd_h * NANO * SPAN_H)
    best = max(keys, key=lambda c: c.cost, default=None)
    if best is None or best.cost <= 0 or best.cost < CARRIES * excess or best.cost < MOST * total:
        return None
    return best.name


def figures(context: Context) -> dict[str, Any]:
    """Return what the context adds to a finding's evidence, JSON-ready."""
    return {
        "cost_15m_nano": context.cost_15m,
        "cost_24h_nano": context.cost_24h,
        "rate_usd_h": round(context.rate_usd_h, 6),
        "top": [
            {"kind": c.kind, "name": c.name, "cost_nano": c.cost, "calls": c.calls}
            for c in sorted(context.top, key=lambda c: (-c.cost, c.kind, c.name))[:TOP]
        ],
    }


def closing(node: str, excess: NanoUsd, lasted_s: float, quiet_s: float) -> str:
    """Return the sentence with which an incident ends."""
    return (
        f"{node} has been back to usual for {span_text(quiet_s)}: "
        f"{usd_text(excess)} above the usual in {span_text(lasted_s)}"
    )


def span_text(seconds: float) -> str:
    """Return a duration for people.

    Examples:
        >>> span_text(45), span_text(900), span_text(5400), span_text(200_000)
        ('45 s', '15 min', '1.5 h', '2.3 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds / 3_600:.3g} h"
    return f"{seconds / 86_400:.2g} days"


def rate_text(usd_h: float) -> str:
    """Return a burn rate for people.

    Examples:
        >>> rate_text(84.1), rate_text(0.004)
        ('$84.10/h', '$0.0040/h')
    """
    return f"${usd_h:,.2f}/h" if usd_h >= 0.01 or usd_h == 0 else f"${usd_h:.4f}/h"
