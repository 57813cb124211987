"""The ladder: a finding opens the first rung, time and further findings climb, quiet and resolution lift.

What holds:
- A rung is climbed after its dwell on the rung below. A budget tier climbs by the clock; an incident only if a
  finding has confirmed it since the last rung was reached: where a rung helps, the next one is never needed.
- Lower rungs stay in force in scopes of their own; in one scope the highest living rung stands for all below.
- Nothing goes down by flapping: a tier ends when it is resolved or its period is over, an incident `hold_s`
  after its last finding, whether or not it is said to be resolved; what people ask for and decide ends at once.
- One (node, scope, policy) has one decision: the strictest that any tier or incident asks for. A changed decision
  carries a later stamp than the one before; when two changes meet at one stamp the second waits for the next call.
- What turns graver is told once more to all who have heard of it, as the same alert.
- Every limit ends: with its life, its period, its incident or its policy. A lift is a stored `allow`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping

from spendbrake.actions.policies.base import matches, problems, trigger_of
from spendbrake.actions.policies.climb import Climb
from spendbrake.actions.policies.notice import Clerk
from spendbrake.actions.policies.state import Group, LadderState
from spendbrake.actions.policies.target import expanded, named_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import COMMAND, Finding
from spendbrake.schemas.policy import Policy, PolicyFile
from spendbrake.schemas.standing import Standing

JUDGED = ("judged", "judged_by")
"""What somebody has said of an incident stands in the news of its end, too."""


class Ladder:
    """The policies of one file. It holds no team's state: one instance serves all.

    Calls for one state come in the order of their stamps.

    Raises:
        ValueError: the file's policies contradict themselves; the text has one line a problem.
    """

    def __init__(self, file: PolicyFile) -> None:
        wrong = problems(file)
        if wrong:
            raise ValueError("\n".join(wrong))
        self._policies: Mapping[str, Policy] = {
            each.name: expanded(each, file.non_production) for each in file.policies
        }
        self._clerk = Clerk(file)
        rules = file.model_dump_json(include={"policies", "destinations", "non_production"})
        self._digest = hashlib.sha256(rules.encode()).hexdigest()[:16]

    def answer(self, state: LadderState, finding: Finding, standing: Standing, stamp: Stamp) -> list[Action]:
        """Return what follows from a finding at `standing.now`.

        The standing is that of `finding.node`, the stamp the place of the record that gave rise to the finding.
        """
        state.digest = state.digest or self._digest
        if finding.state == "resolve":
            return self._resolve(state, finding, standing.now, stamp)
        return self._see(self._policies.values(), state, finding, standing, stamp)

    def adopt(self, state: LadderState, finding: Finding, standing: Standing, stamp: Stamp) -> list[Action]:
        """Return what follows from a tier that stands under policies that do not know it: the file has changed since.

        Findings of detectors and burn rates come again while they go on; a tier is crossed once.
        """
        trigger = trigger_of(finding)
        new = [each for each in self._policies.values() if not _holders(state, each, trigger, finding.node)]
        return self._see(new, state, finding, standing, stamp)

    def _see(
        self, policies: Iterable[Policy], state: LadderState, finding: Finding, standing: Standing, stamp: Stamp
    ) -> list[Action]:
        actions: list[Action] = []
        evidence: dict[str, object] = {}
        for policy in policies:
            for target in _targets(state, policy, finding, standing):
                evidence = evidence or self._clerk.evidence(finding, standing)
                climb = Climb(
                    policy.name, policy, target, state.group(policy.name, target), self._clerk, standing.now, stamp
                )
                climb.see(trigger_of(finding), finding, standing, evidence)
                actions += climb.settle("No longer asked for")
        return actions

    def tick(
        self, state: LadderState, now: float, stamp: Stamp, standing_of: Callable[[str], Standing]
    ) -> list[Action]:
        """Return what the clock brings: rungs whose dwell has passed, lives that have ended.

        Cheap when nothing is due (`state.next_due()`). After a change of the file every group is judged anew, so
        call it once for each team then. `standing_of` is asked only when a rung is climbed.
        """
        actions: list[Action] = []
        changed, state.digest = state.digest != self._digest, self._digest
        for name, target, group in list(state):
            if not changed and (group.due is None or group.due > now):
                continue
            policy = self._policies.get(name)
            climb = Climb(name, policy, target, group, self._clerk, now, stamp)
            climb.advance(standing_of)
            actions += climb.settle("The policy has been withdrawn" if policy is None else "Its time is over")
            state.drop_if_empty(name, target)
        return actions

    def retire(self, state: LadderState, node: str, now: float, stamp: Stamp) -> list[Action]:
        """Return the lifts for a node that has left the tree."""
        actions: list[Action] = []
        for name, target, group in list(state):
            if all(track.node != node for track in group.tracks.values()):
                continue
            climb = Climb(name, self._policies.get(name), target, group, self._clerk, now, stamp)
            climb.end_node(node)
            actions += climb.settle(f"{node} has been removed")
            state.drop_if_empty(name, target)
        return actions

    def knows(self, policy: str) -> bool:
        """Tell whether the file has a policy of this name."""
        return policy in self._policies

    def exempt(
        self, state: LadderState, command: Command, until: float, now: float, stamp: Stamp, why: str
    ) -> list[Action]:
        """Return the lifts of an exception from a policy, which lasts until then; 0 ends what the request was granted.

        What gave rise to a limit goes on being told, and binds again when the last exception is over.
        """
        policy, target = command.policy, command.node
        group = state.group(policy, target)
        climb = Climb(policy, self._policies.get(policy), target, group, self._clerk, now, stamp)
        climb.exempt(command.request, until)
        actions = climb.settle(why)
        state.drop_if_empty(policy, target)
        return actions

    def standing_decisions(self, state: LadderState, now: float) -> list[Action]:
        """Return every decision in force, and every lift whose decision could still be read, as it was issued."""
        return [
            slot.action
            for _, _, group in state
            for _, slot in sorted(group.slots.items())
            if slot.action.mode == "enforce" and slot.action.expires_at > now
        ]

    def _resolve(self, state: LadderState, finding: Finding, now: float, stamp: Stamp) -> list[Action]:
        actions: list[Action] = []
        trigger = trigger_of(finding)
        said = {name: finding.evidence[name] for name in JUDGED if name in finding.evidence}
        for policy in self._policies.values():
            for target in _holders(state, policy, trigger, finding.node):
                group = state.group(policy.name, target)
                group.tracks[trigger].evidence = {**group.tracks[trigger].evidence, **said}
                climb = Climb(policy.name, policy, target, group, self._clerk, now, stamp)
                # What people decide does not flap.
                climb.resolve(trigger, at_once=finding.detector == COMMAND)
                actions += climb.settle(finding.reason)
                state.drop_if_empty(policy.name, target)
        return actions


def _holders(state: LadderState, policy: Policy, trigger: str, node: str) -> list[str]:
    """Return the targets on which a policy has a track for the trigger of a node."""
    groups = state.groups.get(policy.name, {})
    if policy.target == "finding":
        group = groups.get(node)
        return [node] if group is not None and _holds(group, trigger, node) else []
    return [target for target, group in sorted(groups.items()) if _holds(group, trigger, node)]


def _holds(group: Group, trigger: str, node: str) -> bool:
    track = group.tracks.get(trigger)
    return track is not None and track.node == node


def _targets(state: LadderState, policy: Policy, finding: Finding, standing: Standing) -> list[str]:
    """Return whom a finding concerns under a policy: those bound for it already, or the one to bind.

    What has been opened is confirmed even by a finding the policy would not open for: a milder severity is no end.
    """
    key = named_key(policy, finding)
    known = _holders(state, policy, trigger_of(finding), finding.node)
    if known and (key is None or key in known):
        return known if key is None else [key]
    if key is None and policy.target == "named_key":
        return []
    return [key or finding.node] if matches(policy.when, finding, standing) else []
