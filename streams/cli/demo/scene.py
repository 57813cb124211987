"""What the demo knows: the money, the findings, the verdicts so far. It shows nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import usd_text
from spendbrake.schemas.topics import ACTIONS, FINDINGS
from spendbrake.schemas.usage import UNTAGGED, UsageEvent
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.simulate.company import Runaway
from spendbrake.streams.workers.partitions.journal import Owned

Price = Callable[[UsageEvent], int]
"""Cost of an event, nano-USD, by the price book in force."""
SINGLE = "*"
"""Scope of a decision on all calls of a node."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, for people; `at` by the trace's clock."""

    at: float
    kind: str
    severity: str
    text: str


@dataclass
class Watched:
    """What the gateway has answered for one key.

    Attributes:
        verdict: Of the decision in force; a single call that passes under a throttle changes nothing.
        changes: (trace's clock, verdict) whenever it became another.
    """

    result: CheckResult
    verdict: str
    changes: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Scene:
    """The state of a demonstration.

    Attributes:
        runaway: The truth about the agent that runs away; None where nobody knows it, as in a recorded trace.
        culprit: The runaway's key; where nobody knows it, the first that a decision names, or the heaviest of a
            node that it does.
        neighbour: Another key, for comparison: nothing may happen to it. The first one seen unless given.
        team: The culprit's team.
        now: The trace's clock.
        clocks: The clock each partition has been stepped to.
        spent: Money of calls that ran, nano-USD; `loose` what the culprit's calls cost since it ran away.
        stopped: Money of calls that the gateway refused, nano-USD.
        watched: What the gateway says of the culprit's and the neighbour's keys.
        first: First finding on the runaway after it began; in a recorded trace the first of weight.
        limited: Nodes under a decision other than allow.
    """

    guard: Guard
    price: Price
    runaway: Runaway | None
    neighbour: str | None = None
    now: float = 0.0
    clocks: dict[int, float] = field(default_factory=dict)
    events: int = 0
    spent: int = 0
    loose: int = 0
    stopped: int = 0
    calls_stopped: int = 0
    findings: int = 0
    feed: list[Line] = field(default_factory=list)
    watched: dict[str, Watched] = field(default_factory=dict)
    first: Finding | None = None
    told: list[Line] = field(default_factory=list)
    owned: dict[int, Owned] = field(default_factory=dict)
    limited: set[str] = field(default_factory=set)
    culprit: str | None = None
    team: str | None = None
    _call: tuple[str, str | None, str | None] | None = None
    _decided: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _heaviest: dict[str, str] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Watch the runaway's key from the beginning."""
        if self.runaway is not None:
            self.culprit, self.team = self.runaway.key, self.runaway.team

    def gate(self, events: Iterator[UsageEvent]) -> Iterator[UsageEvent]:
        """Let all calls pass a gateway: what it refuses does not happen."""
        for event in events:
            self.now = max(self.now, event.time)
            cost = self.price(event)
            self._know(event)
            mine = self.runaway.owns(event) if self.runaway is not None else event.api_key_id == self.culprit
            if (mine or self._bound(event)) and not self._check(event).allowed:
                self.stopped += cost
                self.calls_stopped += 1
                continue
            self.loose += cost * mine
            self.events += 1
            self.spent += cost
            yield event

    def _know(self, event: UsageEvent) -> None:
        """Remember the neighbour's latest call; the first key that is not the culprit's is the neighbour's."""
        if self.neighbour is None or self.neighbour == self.culprit:
            self.neighbour = event.api_key_id if event.api_key_id != self.culprit else None
        if event.api_key_id == self.neighbour:
            self._call = event.model, event.environment, event.project

    def _bound(self, event: UsageEvent) -> bool:
        """Tell whether a decision may bind a call: only then is it worth a question."""
        if not self.limited:
            return False
        return bool(self.limited & {event.api_key_id, event.project, event.team or UNTAGGED} or self._above())

    def _above(self) -> set[str]:
        """Return limited nodes that are neither a team's nor a key's own: they bind everybody."""
        return {node for node in self.limited if self._named.get(node) == ""}

    def _check(self, event: UsageEvent) -> CheckResult:
        result = self.guard.check(event.api_key_id, event.model, event.environment, event.project)
        if event.api_key_id in (self.culprit, self.neighbour):
            self._note(event.api_key_id, event.time, result)
        return result

    def _note(self, key: str, at: float, result: CheckResult) -> None:
        """Note a verdict on a watched key."""
        before = self.watched.get(key)
        # One call of many passes under a throttle: what counts is that it took from a bucket.
        verdict = "throttle" if result.remaining is not None and result.allowed else result.verdict
        if before is None:
            before = self.watched[key] = Watched(result, verdict, [(at, verdict)])
        elif verdict != before.verdict:
            before.changes.append((at, verdict))
        before.result, before.verdict = result, verdict

    def look(self) -> None:
        """Ask the gateway about the neighbour's key."""
        if self.neighbour is not None and self._call is not None:
            self._note(self.neighbour, self.now, self.guard.check(self.neighbour, *self._call))

    def observe(self, owned: Owned, outcome: Outcome) -> None:
        """Take in what a step of the engine of teams has come to."""
        self.clocks[owned.number] = outcome.now
        self.owned[owned.number] = owned
        self.observe_parents(owned, outcome)

    def observe_parents(self, owned: Owned, outcome: Outcome) -> None:
        """Take in the findings and decisions of a step."""
        for record in outcome.records:
            if record.topic == FINDINGS.name and record.value is not None:
                self._finding(decode(Finding, record.value))
            elif record.topic == ACTIONS.name and record.value is not None:
                self._action(decode(Action, record.value))

    def _finding(self, finding: Finding) -> None:
        weighty = finding.severity != "info" and finding.state != "resolve"
        if self.runaway is not None:
            began = finding.time >= self.runaway.started_at
            weighty = weighty and began and self.runaway.team in (finding.team, finding.node)
        if self.first is None and weighty:
            self.first = finding
        key = next((part["name"] for part in finding.evidence.get("top", ()) if part["kind"] == "key"), None)
        if key is not None:
            self._heaviest[finding.node] = key
        if finding.state == "open":
            self.findings += 1
            self.feed.append(Line(finding.time, "finding", finding.severity, finding.reason))
            if cause := cause_of(finding):
                self.feed.append(Line(finding.time, "cause", finding.severity, cause))

    def _action(self, action: Action) -> None:
        if action.effect != "limits" or action.mode == "shadow":
            return
        place, scope = (action.node, action.policy, action.scope.text()), action.scope.text()
        before = self._decided.get(place, "allow")
        self._decided[place], self._named[action.node] = action.verdict, action.team
        if action.verdict != "allow":
            self.limited.add(action.node)
        elif not any(v != "allow" for (node, _, _), v in self._decided.items() if node == action.node):
            self.limited.discard(action.node)
        if action.verdict == before:
            return
        if self.culprit is None and action.verdict != "allow":
            own = action.node not in (action.team, "") and bool(action.team)
            self.culprit = action.node if own else self._heaviest.get(action.node)
            self.team = action.team or None
        text = action.node if scope == SINGLE else f"{action.node} ({scope})"
        if rate := action.params.get("max_rps"):
            text += f": one call in {1 / rate:g} s" if rate < 1 else f": {rate:g} calls a second"
        self.feed.append(Line(action.time, action.verdict, action.severity, text))

    def hear(self, data: Mapping[str, Any]) -> None:
        """Note that the on-call was told, as it was put to them."""
        line = Line(self.now, "told", str(data["severity"]), f"on-call, by signed webhook: {data['reason']}")
        self.told.append(line)
        self.feed.append(line)


def cause_of(finding: Finding) -> str:
    """Return who carries a finding, in words: its key, else the heaviest, and the heaviest of other kinds."""
    heaviest: dict[str, Any] = {}
    key = finding.evidence.get("key")
    for part in finding.evidence.get("top", ()):
        if part["kind"] != "key" or key in (None, part["name"]):
            heaviest.setdefault(part["kind"], part)
    said = [f"{kind} {part['name']} {usd_text(part['cost_nano'])}" for kind, part in heaviest.items()]
    return f"in 15 min: {', '.join(said)}" if said else ""
