"""One policy's answer on one target at one moment: opens, climbs, ends and settles. It sends nothing."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from spendbrake.actions.policies.base import LIFT, NOTICE, OTHERS
from spendbrake.actions.policies.ends import climb_at, due_or_never, limit_end, track_end
from spendbrake.actions.policies.notice import Clerk, Want
from spendbrake.actions.policies.state import Group, Slot, Track
from spendbrake.actions.policies.target import is_partial
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import VERDICTS, Scope, Stamp
from spendbrake.schemas.finding import COMMAND, SEVERITIES, Finding
from spendbrake.schemas.policy import Limit, Policy, Rung
from spendbrake.schemas.standing import Standing

GIVEN = ("grant", "exempt")
"""Kinds of commands whose news are told once, and are no trouble that goes on."""

ENFORCED = "enforced"
"""Marks what is told as a policy leaves shadow: nobody has heard of it."""


class Climb:
    """A group in the hands of its policy; `actions` collects what follows.

    Args:
        name: The policy's.
        policy: None when the file has it no longer.
        now: The log's clock; `stamp` the place of the record at hand.
    """

    def __init__(
        self, name: str, policy: Policy | None, target: str, group: Group, clerk: Clerk, now: float, stamp: Stamp
    ) -> None:
        self.actions: list[Action] = []
        self._name, self._policy, self._target, self._group = name, policy, target, group
        self._clerk, self._now, self._stamp = clerk, now, stamp
        self._ended: dict[str, Track] = {}
        self._lift_told: set[str] = set()
        self._waits = False
        for track in group.tracks.values():
            del track.climbed[len(track.climbed if policy is None else policy.rungs) :]  # there may be fewer rungs now

    def see(self, key: str, finding: Finding, standing: Standing, evidence: Mapping[str, Any]) -> None:
        """Open the track of a finding, or confirm it and climb what is due."""
        track, again = self._group.tracks.get(key), ""
        if track is None or (track.tier is not None and track.turn != finding.turn):
            track = self._group.tracks[key] = _opened(finding, standing, evidence)
            if finding.evidence.get("notify", True):
                self._announce(key, track)
        elif finding.current or not track.bound:
            again = _news(finding, track)
            track.confirm(finding, self._now, evidence)
            if finding.current and not track.bound:
                track.bound, track.climbed, again = True, [self._now], ""
                self._announce(key, track)
        rungs = len(track.climbed)
        self._climb(key, track)
        if again and len(track.climbed) == rungs:
            self._announce(key, track, again)

    def advance(self, standing_of: Callable[[str], Standing]) -> None:
        """End tracks whose time has passed, and climb rungs whose dwell has."""
        for key, track in sorted(self._group.tracks.items()):
            if self._policy is None or track_end(self._policy, track) <= self._now:
                self._end(key)
            elif due_or_never(climb_at(self._policy, track)) <= self._now:
                track.evidence = {**track.evidence, **self._clerk.money(standing_of(track.node), track.node)}
                self._climb(key, track)
            elif track.unheard and track.told and self._policy.mode == "enforce":
                self._announce(key, track, ENFORCED)

    def resolve(self, key: str, *, at_once: bool = False) -> None:
        """End a tier at once; an incident climbs no further and ends after its quiet time, unless `at_once`."""
        track = self._group.tracks[key]
        track.resolved = True
        if at_once or track.tier is not None or self._policy is None or track_end(self._policy, track) <= self._now:
            self._end(key)

    def end_node(self, node: str) -> None:
        """End all tracks of a node."""
        for key in sorted(key for key, track in self._group.tracks.items() if track.node == node):
            self._end(key)

    def exempt(self, request: str, until: float) -> None:
        """Let nobody be limited until then, by a request that was granted; 0 ends its exception, and no other."""
        if until:
            self._group.exempt[request] = until
        elif self._group.exempt.pop(request, None) is None:
            self._group.exempt.pop("", None)

    def settle(self, why: str) -> list[Action]:
        """Bring the standing decisions in line with what the tracks want now; return all that follows.

        Args:
            why: Reason given for decisions that end.
        """
        wants = self._wants()
        for key in sorted({*wants, *self._group.slots}):
            want, slot = wants.get(key), self._group.slots.get(key)
            if want is not None:
                self._enforce(key, want, slot)
            elif slot is not None:
                self._release(key, slot, why)
        self._tell_ends(why)
        self._group.due = self._due()
        return self.actions

    def _tell_ends(self, why: str) -> None:
        """Tell of the alerts that are over to those who have heard of them, where no lift has said so."""
        mode = self._policy.mode if self._policy is not None else "enforce"
        for key, track in sorted(self._ended.items()):
            if track.told and key not in self._lift_told:
                # That something was given is no news that its time is over.
                said = track.reason if track.evidence.get("kind") in GIVEN and not track.resolved else why
                self.actions += self._clerk.end_notices(
                    self._name, mode, self._target, track, said, self._now, self._stamp
                )

    def _end(self, key: str) -> None:
        self._ended[key] = self._group.tracks.pop(key)

    def _climb(self, key: str, track: Track) -> None:
        while self._policy is not None and due_or_never(climb_at(self._policy, track)) <= self._now:
            track.climbed.append(self._now)
            self._announce(key, track)

    def _announce(self, key: str, track: Track, again: str = "") -> None:
        """Notify of the rung a track stands on; of a track that binds nobody, of the finding only; or of its news."""
        if self._policy is None:
            return
        rung = self._policy.rungs[len(track.climbed) - 1]
        want = self._want(self._policy, key, track, rung, rung.limit, track.climbed[-1])
        if not track.bound:
            want = replace(want, rung=NOTICE, limit=None, scope=Scope())
        track.unheard = self._policy.mode == "shadow"
        if again:
            self.actions += self._clerk.notices(want, track.told, self._now, self._stamp, mark=again)
            return
        self.actions += self._clerk.notices(want, rung.notify, self._now, self._stamp)
        track.told += [name for name in rung.notify if name not in track.told]

    def _want(self, policy: Policy, key: str, track: Track, rung: Rung, limit: Limit | None, climbed_at: float) -> Want:
        return Want(
            policy=policy,
            target=self._target,
            key=key,
            track=track,
            rung=rung.name,
            limit=limit,
            scope=self._clerk.scope(limit),
            ends_at=limit_end(policy, track, limit, climbed_at),
        )

    def _wants(self) -> dict[str, Want]:
        """Return what each slot should hold: of each track its highest living rung, of all tracks the strictest."""
        if self._group.is_exempt(self._now):
            return {}
        wanted: dict[str, list[Want]] = {}
        for key, track in sorted(self._group.tracks.items()):
            for want in self._wants_of(key, track):
                wanted.setdefault(f"{want.policy.mode}|{want.scope.text()}", []).append(want)
        leaders = {key: slot.leader for key, slot in self._group.slots.items()}
        return {key: _strictest(wants, leaders.get(key, "")) for key, wants in wanted.items()}

    def _wants_of(self, key: str, track: Track) -> Iterator[Want]:
        if self._policy is None or not track.bound:
            return
        highest: dict[str, Want] = {}
        for rung, climbed_at in zip(self._policy.rungs, track.climbed, strict=False):
            for limit in rung.limit.parts() if rung.limit is not None else ():
                want = self._want(self._policy, key, track, rung, limit, climbed_at)
                if want.ends_at > self._now:
                    highest[want.scope.text()] = want
        yield from highest.values()
        if is_partial(self._policy):
            # The record of what would have happened to the keys that the rollout has not reached.
            shadow = self._policy.model_copy(update={"mode": "shadow"})
            yield from (replace(want, policy=shadow, rung=want.rung + OTHERS) for want in highest.values())

    def _enforce(self, key: str, want: Want, slot: Slot | None) -> None:
        action = self._clerk.decision(want, self._now, self._stamp)
        if slot is not None and _content(slot.action) == _content(action):
            return
        if self._is_too_early(slot):
            return
        until = max(action.expires_at, slot.until if slot is not None else 0.0)
        self._group.slots[key] = Slot(action=action, leader=want.key, until=until)
        self.actions.append(replace(action, evidence=want.track.evidence))

    def _release(self, key: str, slot: Slot, why: str) -> None:
        if slot.action.rung in (LIFT, LIFT + OTHERS):
            if slot.action.expires_at <= self._now:
                del self._group.slots[key]
            return
        if self._is_too_early(slot):
            return
        slot.action = self._clerk.lift(slot, why, self._now, self._stamp)
        self.actions.append(slot.action)
        track = self._ended.get(slot.leader) or self._group.tracks.get(slot.leader)
        if track is not None and slot.action.rung == LIFT and slot.leader not in self._lift_told:
            self._lift_told.add(slot.leader)
            self.actions += self._clerk.lift_notices(slot.action, track, over=slot.leader in self._ended)

    def _is_too_early(self, slot: Slot | None) -> bool:
        """Say whether a change must wait: a reader takes only later stamps."""
        if slot is None:
            return False
        last, stamp = slot.action.stamp, self._stamp
        early = (stamp.epoch, stamp.offset) <= (last.epoch, last.offset)
        self._waits = self._waits or early
        return early

    def _due(self) -> float | None:
        times = [slot.action.expires_at for slot in self._group.slots.values()]
        if self._policy is not None:
            for track in self._group.tracks.values():
                times += [track_end(self._policy, track), due_or_never(climb_at(self._policy, track))]
        times += self._group.exempt.values()
        if self._waits:
            times.append(self._now)
        return min((at for at in times if at < math.inf), default=None)


def _opened(finding: Finding, standing: Standing, evidence: Mapping[str, Any]) -> Track:
    told, closes = finding.evidence, finding.evidence.get("open_until") if finding.detector == COMMAND else None
    ends_at = closes if finding.tier is None else float(told.get("period_ends_at", standing.period_ends_at))
    return Track(
        node=finding.node,
        team=finding.team,
        partition=standing.partition,
        tier=finding.tier,
        incident="" if finding.tier is not None else finding.incident or finding.id,
        period=finding.period,
        turn=finding.turn,
        severity=finding.severity,
        reason=finding.reason,
        finding=finding.id,
        climbed=[standing.now],
        seen=standing.now,
        ends_at=ends_at,
        bound=finding.current,
        evidence=evidence,
    )


def _news(finding: Finding, track: Track) -> str:
    """Return what marks a finding as news of a track: graver than before, or what people have decided."""
    if SEVERITIES.index(finding.severity) > SEVERITIES.index(track.severity):
        return finding.severity
    return finding.id if finding.detector == COMMAND else ""


def _strictest(wants: list[Want], leader: str) -> Want:
    """Return the strictest want, the leader's among equals, with the latest end of its equals."""
    top = max(wants, key=lambda want: (*_strictness(want.limit), want.key == leader))
    equals = [want.ends_at for want in wants if want.limit == top.limit]
    return replace(top, ends_at=max(equals))


def _strictness(limit: Limit | None) -> tuple[int, float]:
    if limit is None:
        return -1, 0.0
    return VERDICTS.index(limit.verdict), -(limit.max_rps or 0.0)


def _content(action: Action) -> tuple[object, ...]:
    return action.id, action.verdict, action.params, action.expires_at, action.mode
