"""What a finding says about who carries the money. Words and shares; no thresholds on scores."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from spendbrake.detectors.base import Evidence
from spendbrake.detectors.memory.mix import Moved, moved_text
from spendbrake.detectors.series.features import HOUR_S, SPANS_S, Features
from spendbrake.schemas.money import NANO, NanoUsd, usd_text
from spendbrake.schemas.reading import Context, Contributor

CARRIES = 0.8
"""A node that carries this part of the excess is the one a finding points at."""
MOST = 0.5
SPAN_H = 0.25
TOP = 5
SESSION = "session "
"""How the words for a session begin whose name is known."""


def carrier(context: Context, usual_usd_h: float, kind: Literal["key", "project"] = "key") -> Contributor | None:
    """Return the API key or the project that carries the excess of the last 15 minutes almost alone, if one does.

    What it usually spends is not known: the heaviest is taken for the cause only if it also spends most of all.
    """
    some = [c for c in context.top if c.kind == kind]
    total = sum(c.cost for c in some)
    if kind == "project":  # not every call has one
        total = max(total, context.cost_15m)
    excess = total - round(usual_usd_h * NANO * SPAN_H)
    best = max(some, key=lambda c: c.cost, default=None)
    if best is None or best.cost <= 0 or best.cost < CARRIES * excess or best.cost < MOST * total:
        return None
    return best


def figures(
    context: Context, moved: Sequence[Moved] = (), sessions: Sequence[tuple[str, str, int, int]] = ()
) -> dict[str, Any]:
    """Return what the state of things adds to a finding's evidence, JSON-ready."""
    return {
        "moved": [
            {"factor": one.factor, "times": round(one.times, 4), "usd_h_nano": one.amount}
            for one in moved
            if one.amount
        ],
        "moved_usd_h_nano": sum(one.amount for one in moved),
        "sessions": [
            {"name": name, "key": key, "cost_nano": cost, "calls": calls} for name, key, cost, calls in sessions
        ],
        "cap_left_nano": context.cap_left,
        "cost_15m_nano": context.cost_15m,
        "cost_24h_nano": context.cost_24h,
        "rate_usd_h": round(context.rate_usd_h, 6),
        "top": [
            {"kind": c.kind, "name": c.name, "cost_nano": c.cost, "calls": c.calls}
            for c in sorted(context.top, key=lambda c: (-c.cost, c.kind, c.name))[:TOP]
        ],
    }


class LaidTo(NamedTuple):
    """Whom an incident is laid to, None where nobody is; `session` are words for the one that spends most."""

    key: str | None = None
    project: str | None = None
    session: str = ""


def state_of_things(
    context: Context, moved: Sequence[Moved], team: str, usual_usd_h: float, laid_to: LaidTo, text: str
) -> str:
    """Return what a finding says after what is wrong (`text`): what to stop, how fast money goes, until when."""
    parts = [_to_stop(context, team, laid_to, text)]
    rate = context.rate_usd_h
    now = f"Now {rate_text(rate)}"
    if usual_usd_h > 0.0:
        now += f", usual {rate_text(usual_usd_h)}"
    if up := moved_text(moved):
        now += f"; the last hour's rise: {up}"
    parts.append(now)
    if context.cap_left is not None and rate > 0:
        left = span_text(context.cap_left / NANO / rate * HOUR_S)
        name = context.cap_name or "the next cap"
        parts.append(f"At this rate {name} lasts {left}, {usd_text(context.cap_left)} left")
    return ". ".join(part for part in parts if part)


def dear_session(context: Context, sessions: Sequence[tuple[str, str, int, int]], key: str | None, text: str) -> str:
    """Return the dearest session under way, of `key` where one is, if it has a name that `text` does not tell already.

    It must matter beside the last 15 minutes.
    """
    mine = [one for one in sessions if key is None or one[1] == key]
    name, _, cost, calls = max(mine, key=lambda one: one[2], default=("", "", 0, 0))
    if not name.startswith(SESSION) or name.removeprefix(SESSION) in text or cost < MOST * context.cost_15m:
        return ""
    return f", dearest {name} with {usd_text(cost)} in {calls_text(calls)} so far"


def _to_stop(context: Context, team: str, laid_to: LaidTo, text: str) -> str:
    """Return who has to be stopped: the key, else the project, else the dearest keys; and where most of it goes."""
    key, project, session = laid_to
    keys = sorted((one for one in context.top if one.kind == "key"), key=lambda one: -one.cost)
    if key is None and len(keys) == 1:
        key = keys[0].name
    dearest = " and ".join(f"{one.name} {usd_text(one.cost)}" for one in keys[:2])
    whole = f"of team {team}'s {usd_text(context.cost_15m)} in 15 min"
    if key is not None:
        held = _spent(context, "key", key)
        return _named(f"key {key}", held, context, whole) + _where(context, text, project, held) + session
    if project is not None:
        held = _spent(context, "project", project)
        by = f", by {dearest}" if held and dearest else ""
        return _named(f"project {project}", held, context, whole) + by + _where(context, text, None, 0) + session
    if not keys:
        return ""
    return f"No key alone: {dearest} {whole}" + _where(context, text, None, 0) + session


def _named(what: str, held: NanoUsd, context: Context, whole: str) -> str:
    """Return what to stop and its part in the team's money."""
    if not held:
        return f"To stop: {what}, quiet for 15 min"
    return f"To stop: {what}, {'all' if usd_text(held) == usd_text(context.cost_15m) else usd_text(held)} {whole}"


def _where(context: Context, text: str, project: str | None, held: NanoUsd) -> str:
    """Return the model, where most of the team's money goes to one, and the project, where most of a key's must."""
    model = max((one for one in context.top if one.kind == "model"), key=lambda one: one.cost, default=None)
    on = model is not None and model.name not in text and model.cost >= MOST * context.cost_15m
    both = 0 if project is None else _spent(context, "project", project) + held - context.cost_15m
    said = [f"on {model.name}"] if on and model is not None else []
    if project is not None and project not in text and held and both >= MOST * held:
        said.append(f"in project {project}")
    return f", most {' '.join(said)}" if said else ""


def _spent(context: Context, kind: str, name: str) -> NanoUsd:
    return next((one.cost for one in context.top if one.kind == kind and one.name == name), 0)


def level_evidence(x: Features, what: str) -> Evidence:
    """Return the evidence of a level of burn that is `what`: the excess of the last hour."""
    rate = x.rates[SPANS_S.index(3_600.0)]
    excess = max(int((rate - x.usual_usd_h) * NANO), 0)
    return Evidence(
        excess=excess,
        step=int((x.usd - x.usual_usd_h * x.width_s / 3_600.0) * NANO),
        span_s=3_600.0,
        text=(
            f"Burning {rate_text(rate)} over the last hour, {what}: {usd_text(excess)} above the usual "
            f"{rate_text(x.usual_usd_h)}"
        ),
        details={"span_s": 3_600.0, "span_rate_usd_h": round(rate, 6)},
    )


def closing(node: str, excess: NanoUsd, lasted_s: float, quiet_s: float) -> str:
    """Return the sentence with which an incident ends.

    Examples:
        >>> closing("key-a", 29_510_000_000, 1_140.0, 7_812.0)
        'Over: nothing unusual at key-a for 2.2 h. It cost $29.51 above the usual in 19 min'
    """
    told = f"Over: nothing unusual at {node} for {span_text(quiet_s)}"
    return f"{told}. It cost {usd_text(excess)} above the usual" + (f" in {span_text(lasted_s)}" if lasted_s else "")


def whole_text(excess: NanoUsd, lasted_s: float) -> str:
    """Return what an incident that goes on has come to.

    Examples:
        >>> whole_text(25_470_000_000, 1_680.0)
        'In all $25.47 above the usual in 28 min'
    """
    return f"In all {usd_text(excess)} above the usual in {span_text(lasted_s)}"


def calls_text(n: float) -> str:
    """Return a number of calls for people.

    Examples:
        >>> calls_text(1), calls_text(1_204)
        ('1 call', '1,204 calls')
    """
    return "1 call" if round(n) == 1 else f"{n:,.0f} calls"


def span_text(seconds: float) -> str:
    """Return a duration for people.

    Examples:
        >>> span_text(45), span_text(900), span_text(5400), span_text(62_300), span_text(200_000), span_text(10**7)
        ('45 s', '15 min', '1.5 h', '17 h', '2.3 days', '116 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds / 3_600:.1f}".removesuffix(".0") + " h" if seconds < 36_000 else f"{seconds / 3_600:.0f} h"
    return f"{seconds / 86_400:.1f} days" if seconds < 864_000 else f"{seconds / 86_400:.0f} days"


def rate_text(usd_h: float) -> str:
    """Return a burn rate for people.

    Examples:
        >>> rate_text(84.1), rate_text(0.004)
        ('$84.10/h', '$0.0040/h')
    """
    return f"${usd_h:,.2f}/h" if usd_h >= 0.01 or usd_h == 0 else f"${usd_h:.4f}/h"
