"""How actions are filled in: the decision, its lift, and what people are told of them. It decides nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from spendbrake.actions.policies.base import LIFT, LIMITS, OTHERS, RESOLVED, action_id, code_of
from spendbrake.actions.policies.state import Slot, Track
from spendbrake.actions.policies.target import is_partial, scope_label, scope_of
from spendbrake.schemas.action import Action, Mode
from spendbrake.schemas.decision import Scope, Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.parts.destinations import SlackDestination
from spendbrake.schemas.policy import Limit, Policy, PolicyFile
from spendbrake.schemas.standing import Standing

NOTICE_LIFE_S = 86_400.0
"""A notification that could not be brought for a day is dropped as expired."""
LIFT_LIFE_S = 60.0
"""Least life of a stored `allow`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one rung of a track asks for. `limit` is None for a rung that only notifies.

    Attributes:
        key: The track's key in its group.
        ends_at: End of the limit, epoch seconds UTC.
    """

    policy: Policy
    target: str
    key: str
    track: Track
    rung: str
    limit: Limit | None
    scope: Scope
    ends_at: float


class Clerk:
    """Writes the actions of one policy file."""

    def __init__(self, file: PolicyFile) -> None:
        self._destinations = file.destinations
        self._non_production = file.non_production
        self._tiers = {tier.name: tier for tier in file.tiers}
        self._contacts = {node.id: node.contacts for node in file.nodes}

    def evidence(self, finding: Finding, standing: Standing) -> dict[str, Any]:
        """Return a finding's evidence with the money of its node, amounts in nano-USD."""
        tier = self._tiers.get(finding.tier or "")
        return {
            **({"basis": tier.basis, "threshold": float(tier.at)} if tier is not None else {}),
            **{name: value for name, value in finding.evidence.items() if name != "notify"},
            "detector": finding.detector,
            "family": finding.family,
            "finding_node": finding.node,
            **self.money(standing, finding.node),
        }

    def money(self, standing: Standing, node: str) -> dict[str, Any]:
        """Return what people are told of a node: names, contacts, amounts in nano-USD.

        Of a key or project that the tree does not list they are those of what it lies `within`.
        """
        within = {} if node == standing.node else {"within": standing.name}
        contacts = (self._contacts.get(node, ()) for node in (standing.node, *standing.ancestors))
        return {
            "node_name": node if within else standing.name,
            **within,
            "level": standing.level,
            "ancestors": list(standing.ancestors),
            "budget_period": standing.period,
            "month_to_date_nano": standing.month_to_date,
            "budget_nano": standing.budget,
            "allocation_nano": standing.allocation,
            "forecast_nano": standing.forecast,
            "rate_usd_h": standing.rate_usd_h,
            "contacts": list(next((people for people in contacts if people), ())),
        }

    def scope(self, limit: Limit | None) -> Scope:
        """Return the calls a limit is about."""
        return scope_of(limit.scope, self._non_production) if limit is not None else Scope()

    def decision(self, want: Want, now: float, stamp: Stamp) -> Action:
        """Return the absolute decision for a want with a limit."""
        if want.limit is None:
            raise ValueError(f"rung {want.rung!r} of policy {want.policy.name!r} has no limit")
        return self._action(want, now, stamp)

    def notices(
        self, want: Want, destinations: Iterable[str], now: float, stamp: Stamp, *, mark: str = ""
    ) -> list[Action]:
        """Return one notification a destination; each names everyone who is told.

        Args:
            mark: Enters the ids of what is told of a rung again.
        """
        base = self._action(want, now, stamp)
        params = {**base.params, "scope": scope_label(want.scope, self._non_production), "ends_at": want.ends_at}
        return self._addressed(replace(base, params=params, evidence=want.track.evidence), destinations, now, mark)

    def lift(self, slot: Slot, why: str, now: float, stamp: Stamp) -> Action:
        """Return the stored `allow` that ends a slot's decision and outlives every decision it replaces."""
        rung = LIFT + OTHERS if slot.action.rung.endswith(OTHERS) else LIFT
        return replace(
            slot.action,
            id=_id(slot.action, rung, ""),
            time=now,
            rung=rung,
            severity="info",
            verdict="allow",
            reason=why,
            code=code_of("allow", None),
            stamp=stamp,
            expires_at=max(now + LIFT_LIFE_S, slot.until),
            reset_at=None,
            params={},
        )

    def lift_notices(self, lift: Action, track: Track, *, over: bool) -> list[Action]:
        """Return the news of a lift for everyone who has heard of the limit; `over` = its alert has ended with it."""
        scope = scope_label(lift.scope, self._non_production)
        base = replace(lift, params={"scope": scope, "ends_at": lift.time, "resolved": over}, evidence=track.evidence)
        return self._addressed(base, track.told, lift.time)

    def end_notices(
        self, policy: str, mode: Mode, target: str, track: Track, why: str, now: float, stamp: Stamp
    ) -> list[Action]:
        """Return the news that an alert is over for everyone who has heard of it, where no lift tells it."""
        base = replace(
            _unlimited(policy, mode, target, track, now, stamp),
            rung=RESOLVED,
            severity="info",
            reason=why,
            reset_at=None,
            params={"scope": "all", "ends_at": now, "resolved": True},
            evidence=track.evidence,
        )
        return self._addressed(base, track.told, now)

    def _action(self, want: Want, now: float, stamp: Stamp) -> Action:
        track, limit = want.track, want.limit
        verdict = limit.verdict if limit is not None else "allow"
        action = replace(
            _unlimited(want.policy.name, want.policy.mode, want.target, track, now, stamp),
            rung=want.rung,
            verdict=verdict,
            expires_at=want.ends_at,
            scope=want.scope,
            params={**_limit_params(limit), **_share(want)} if limit is not None else {},
            code=code_of(verdict, track.tier),
        )
        return replace(action, id=_id(action, want.rung, ""))

    def _addressed(self, base: Action, names: Iterable[str], now: float, mark: str = "") -> list[Action]:
        known = [(name, self._destinations[name]) for name in names if name in self._destinations]
        people = [*base.evidence.get("contacts", ())]
        people += [place.channel for _, place in known if isinstance(place, SlackDestination)]
        return [
            replace(
                base,
                id=_id(base, f"{base.rung}\x1f{mark}" if mark else base.rung, name),
                effect=place.type,
                destination=name,
                expires_at=now + NOTICE_LIFE_S,
                params={
                    **base.params,
                    "notify": people,
                    **({"channel": place.channel} if isinstance(place, SlackDestination) else {}),
                },
            )
            for name, place in known
        ]


def _unlimited(policy: str, mode: Mode, target: str, track: Track, now: float, stamp: Stamp) -> Action:
    """Return what all actions of a track have in common; it orders nothing yet, and has no id."""
    return Action(
        id="",
        time=now,
        team=track.team,
        node=target,
        effect=LIMITS,
        policy=policy,
        rung="",
        severity=track.severity,
        verdict="allow",
        reason=track.reason,
        finding=track.finding,
        stamp=stamp,
        partition=track.partition,
        expires_at=now,
        code=code_of("allow", None),
        incident=track.incident,
        tier=track.tier,
        period=track.period,
        turn=track.turn,
        reset_at=track.ends_at,
        mode=mode,
    )


def _share(want: Want) -> dict[str, float]:
    """Return the share of keys that a limit binds, or beyond which its shadow looks."""
    percent = want.policy.canary_percent
    if percent is None or not (want.rung.endswith(OTHERS) or is_partial(want.policy)):
        return {}
    return {"beyond_percent" if want.rung.endswith(OTHERS) else "percent": percent}


def _limit_params(limit: Limit) -> dict[str, Any]:
    routes = dict(limit.routes) or None
    values = {"max_rps": limit.max_rps, "burst": limit.burst, "model": limit.model, "routes": routes}
    return {name: value for name, value in values.items() if value is not None}


def _id(action: Action, rung: str, destination: str) -> str:
    return action_id(
        node=action.node,
        scope=action.scope,
        policy=action.policy,
        trigger=action.tier or action.incident,
        period=action.period,
        turn=action.turn,
        rung=rung,
        destination=destination,
    )
