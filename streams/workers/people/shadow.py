"""What policies that bind nobody, or not everybody yet, would have done, by the log of actions. It decides nothing."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from spendbrake.actions.policies.base import LIMITS, OTHERS
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Verdict
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.policy import Policy

NANO_USD_A_DOLLAR, HOUR_S = 10**9, 3_600.0
ALL = "100 %"
Part = tuple[float, float, float | None]
"""From when until when, and what was burned an hour as it began, USD."""


@dataclass(slots=True, kw_only=True)
class Step:
    """A limit that would have stood.

    Attributes:
        until: When it would have been replaced or lifted, or would have ended; inf while it goes on.
        rate_usd_h: What the node burned when it began; None where that was not told.
    """

    verdict: Verdict
    rung: str
    at: float
    until: float
    rate_usd_h: float | None


@dataclass(slots=True, kw_only=True)
class Spell:
    """One time that a policy would have limited a node, from its first rung to its end.

    Attributes:
        scope: The calls it is about, as `Scope.text`.
        beyond_percent: Share of the keys that were bound in earnest; None where nobody was.
        reason: Why it began.
        end: Why it would have ended; empty while it goes on, or where its time was over.
    """

    policy: str
    node: str
    team: str
    scope: str
    beyond_percent: float | None
    reason: str
    steps: list[Step]
    end: str = ""

    @property
    def at(self) -> float:
        """Return when it began, epoch seconds UTC."""
        return self.steps[0].at

    @property
    def until(self) -> float:
        """Return when it ended; inf while it goes on."""
        return self.steps[-1].until

    def burned(self, now: float) -> NanoUsd | None:
        """Return about what the node burned meanwhile; None where no rate was told."""
        return _burned(_once(self.steps, now))


@dataclass(slots=True, kw_only=True)
class Would:
    """The record of one policy: spells in the order they began, and messages by destination."""

    spells: list[Spell] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)

    def verdicts(self) -> dict[str, int]:
        """Return how many times it would have come to each verdict."""
        return dict(
            Counter(verdict for spell in self.spells for verdict in {step.verdict: None for step in spell.steps})
        )

    def lasted(self, now: float) -> float:
        """Return for how long nodes would have been limited, seconds; a node in two scopes counts once."""
        return sum(until - at for at, until, _ in self._parts(now))

    def burned(self, now: float) -> NanoUsd | None:
        """Return about what was burned meanwhile; None where no rate was told."""
        return _burned(self._parts(now))

    def _parts(self, now: float) -> list[Part]:
        nodes: dict[str, list[Step]] = {}
        for spell in self.spells:
            nodes.setdefault(spell.node, []).extend(spell.steps)
        return [part for steps in nodes.values() for part in _once(steps, now)]


def _once(steps: Iterable[Step], now: float) -> list[Part]:
    """Return the time that some step stood, cut where the newest of those that stand changes."""
    parts: list[Part] = []
    standing: list[Step] = []
    ordered = sorted(steps, key=lambda step: step.at)
    marks = sorted({step.at for step in ordered} | {min(step.until, now) for step in ordered})
    waiting = iter(ordered)
    following = next(waiting, None)
    for at, until in pairwise(marks):
        while following is not None and following.at <= at:
            standing.append(following)
            following = next(waiting, None)
        standing = [step for step in standing if min(step.until, now) > at]
        if standing:
            parts.append((at, until, standing[-1].rate_usd_h))
    return parts


def _burned(parts: Iterable[Part]) -> NanoUsd | None:
    """Return what was burned an hour as each part began, times how long it was."""
    known = [rate * (until - at) / HOUR_S for at, until, rate in parts if rate is not None]
    return round(sum(known) * NANO_USD_A_DOLLAR) if known else None


def would_of(actions: Iterable[Action], since: float = 0.0) -> dict[str, Would]:
    """Return the record that shadow actions are, by policy; each counts once, however often it was written.

    Args:
        since: What began earlier is left out, epoch seconds UTC.
    """
    known: set[tuple[object, ...]] = set()
    found: dict[str, Would] = {}
    open_: dict[tuple[str, str, str], Spell] = {}
    for action in sorted(actions, key=lambda each: (each.time, each.stamp.epoch, each.stamp.offset, each.id)):
        # A limit whose life is longer now is ordered under its id again, from a later place in the log.
        written = (action.id, action.stamp.epoch, action.stamp.offset)
        if written in known:
            continue
        known.add(written)
        would = found.setdefault(action.policy, Would())
        if action.effect != LIMITS:
            would.messages[action.destination] += action.time >= since
            continue
        place = (action.policy, action.node, action.scope.text())
        spell = open_.get(place)
        if spell is not None:
            spell.steps[-1].until = min(spell.until, action.time)
        if action.verdict == "allow":
            if spell is not None:
                spell.end = action.reason if spell.until == action.time else ""
                del open_[place]
        elif spell is not None and spell.until == action.time:
            spell.steps.append(_step(action))
        else:
            open_[place] = spell = _spell(action)
            would.spells.append(spell)
    for would in found.values():
        would.spells = [spell for spell in would.spells if spell.at >= since]
    return {name: would for name, would in sorted(found.items()) if would.spells or +would.messages}


def completed(found: Mapping[str, Would], policies: Iterable[Policy]) -> dict[str, Would]:
    """Return the record with the policies that bind nobody, or not everybody yet, and have left none."""
    silent = {each.name: Would() for each in policies if binds(each) != ALL and each.name not in found}
    return dict(sorted({**found, **silent}.items()))


def binds(policy: Policy) -> str:
    """Return in words whose keys a policy binds."""
    if policy.mode == "shadow":
        return "nobody"
    return ALL if policy.canary_percent in (None, 100) else f"{policy.canary_percent:g} %"


def document_of(found: Mapping[str, Would], bound: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return the record as JSON: times in epoch seconds UTC, `until` null while it goes on, money in nano-USD.

    Args:
        bound: Whose keys each policy in force binds; null for one that no longer is.
    """
    return {
        "now": now,
        "policies": [
            {
                "policy": name,
                "binds": bound.get(name),
                "would_have": would.verdicts(),
                "lasted_s": would.lasted(now),
                "burned_nano": would.burned(now),
                "messages": dict(would.messages),
                "spells": [_shown(spell, now) for spell in would.spells],
            }
            for name, would in found.items()
        ],
    }


def _shown(spell: Spell, now: float) -> dict[str, Any]:
    told = asdict(spell)
    for step in told["steps"]:
        step["until"] = step["until"] if step["until"] <= now else None
    return {**told, "burned_nano": spell.burned(now)}


def _spell(action: Action) -> Spell:
    beyond = action.params.get("beyond_percent")
    return Spell(
        policy=action.policy,
        node=action.node,
        team=action.team,
        scope=action.scope.text(),
        beyond_percent=None if beyond is None else float(beyond),
        reason=action.reason,
        steps=[_step(action)],
    )


def _step(action: Action) -> Step:
    rate = action.evidence.get("rate_usd_h")
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not math.isfinite(rate):
        rate = None
    return Step(
        verdict=action.verdict,
        rung=action.rung.removesuffix(OTHERS),
        at=action.time,
        until=action.expires_at,
        rate_usd_h=None if rate is None else float(rate),
    )
