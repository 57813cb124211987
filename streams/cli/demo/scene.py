"""What the demo knows: the money, the findings, the verdicts so far. It shows nothing."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.simulate.company import Runaway
from spendbrake.streams.workers.partitions.journal import Owned

Price = Callable[[UsageEvent], int]
"""Cost of an event, nano-USD, by the price book in force."""
FEED = 200
EFFECTS_SHOWN = frozenset({"limits", "slack", "webhook"})


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, for people; `at` by the trace's clock."""

    at: float
    kind: str
    severity: str
    text: str


@dataclass
class Scene:
    """The state of a demonstration.

    Attributes:
        now: The trace's clock.
        clocks: The clock each partition has been stepped to.
        spent: Money of calls that ran, nano-USD; `loose` the runaway's part.
        stopped: Money of the runaway's calls that the gateway refused, nano-USD.
        verdicts: Latest verdict on the runaway's key and on its neighbour's.
        changes: When the verdict on the runaway's key changed, and to what.
        first: First finding on the runaway after it began.
    """

    guard: Guard
    price: Price
    runaway: Runaway | None
    neighbour: str
    now: float = 0.0
    clocks: dict[int, float] = field(default_factory=dict)
    events: int = 0
    spent: int = 0
    loose: int = 0
    stopped: int = 0
    calls_stopped: int = 0
    feed: deque[Line] = field(default_factory=lambda: deque(maxlen=FEED))
    verdicts: dict[str, CheckResult] = field(default_factory=dict)
    changes: list[tuple[float, CheckResult]] = field(default_factory=list)
    first: Finding | None = None
    told: list[Line] = field(default_factory=list)
    owned: dict[int, Owned] = field(default_factory=dict)

    def gate(self, events: Iterator[UsageEvent]) -> Iterator[UsageEvent]:
        """Let the company call its models through a gateway: what the gateway refuses does not happen."""
        for event in events:
            self.now = max(self.now, event.time)
            cost = self.price(event)
            if self.runaway is not None and self.runaway.owns(event):
                if not self._check(event).allowed:
                    self.stopped += cost
                    self.calls_stopped += 1
                    continue
                self.loose += cost
            self.events += 1
            self.spent += cost
            yield event

    def _check(self, event: UsageEvent) -> CheckResult:
        result = self.guard.check(event.api_key_id, event.model, event.environment, event.project)
        before = self.verdicts.get(event.api_key_id)
        # Under a throttle single calls pass: the change that counts is of the decision, not of the bucket.
        verdict = "throttle" if result.code == "rate_limited" else result.verdict
        last = self.changes[-1][1].code if self.changes else ""
        if (before is None or verdict != "allow") and result.code != last:
            self.changes.append((event.time, result))
        self.verdicts[event.api_key_id] = result
        return result

    def look(self) -> None:
        """Ask the gateway about the neighbour's key."""
        self.verdicts[self.neighbour] = self.guard.check(self.neighbour, "claude-sonnet-4-5", "prod")

    def observe(self, owned: Owned, outcome: Outcome) -> None:
        """Take in what a step of the engine has come to."""
        self.clocks[owned.number] = outcome.now
        self.owned[owned.number] = owned
        for record in outcome.records:
            if record.topic == FINDINGS.name and record.value is not None:
                self._finding(decode(Finding, record.value))
            elif record.topic == ACTIONS.name and record.value is not None:
                self._action(decode(Action, record.value))

    def _finding(self, finding: Finding) -> None:
        began = self.runaway is not None and finding.time >= self.runaway.started_at
        mine = self.runaway is not None and self.runaway.team in (finding.team, finding.node)
        if self.first is None and began and mine and finding.severity != "info":
            self.first = finding
        if finding.state == "open":
            self.feed.append(Line(finding.time, "finding", finding.severity, finding.reason))

    def _action(self, action: Action) -> None:
        if action.effect == "limits":
            text = f"{action.verdict} {action.node}" + (
                f" ({action.scope.text()})" if action.scope.text() != "*" else ""
            )
            self.feed.append(Line(action.time, "decision", action.severity, text))

    def hear(self, data: Mapping[str, Any]) -> None:
        """Note that the on-call was told, as it was put to them."""
        line = Line(self.now, "told", str(data["severity"]), f"on-call by webhook: {data['reason']}")
        self.told.append(line)
        self.feed.append(line)
