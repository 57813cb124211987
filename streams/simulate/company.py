"""A small company's days of LLM calls, from a seed, with one agent that runs away. Invented: no trace of anybody's.

Token figures follow published traces, rounded: medians of 1,469 tokens in and 13 out (code completion) and 1,020 in
and 129 out (conversation) from the Azure LLM inference trace of 2023; of 106,546 in, 103,232 of them cached, and 222
out, some 68 calls a session, from kv-cache-tester's coding-agent sessions; a mean of 12,035 in and 343 out from
Mooncake's conversations. The runaway has the shape of public reports: one tool call repeated every 8 seconds for
hours, its context growing and missing the prompt cache, $0.40 to $1 a call. Teams, hours, models, errors are made up.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.usage import UsageEvent

HOUR_S, DAY_S = 3_600.0, 86_400.0
MONDAY = 1_762_732_800.0
"""2025-11-10T00:00:00Z."""
SOURCE = "simulated"
CONTEXT_MAX = 190_000
"""Tokens at which a growing context is compacted."""

OFFICE = (1, 1, 1, 1, 1, 2, 6, 20, 55, 85, 95, 90, 60, 80, 95, 95, 85, 60, 30, 15, 8, 5, 3, 2)
CUSTOMERS = (12, 9, 8, 8, 9, 14, 25, 45, 65, 80, 85, 85, 80, 80, 80, 78, 75, 75, 80, 82, 75, 55, 35, 20)
NIGHT = (80, 95, 100, 95, 70, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 30, 60)


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of use.

    Attributes:
        input_tokens: Median of a session's first call; `spread` is the sigma of the log.
        growth: Tokens by which each further call's input is longer, on average; 0 = each call stands alone.
        cached: Share of the previous call's input that comes from the prompt cache.
        calls: Mean calls a session.
        gap_s: Median seconds between a session's calls.
    """

    input_tokens: int
    output_tokens: int
    spread: float
    calls: float
    gap_s: float
    growth: int = 0
    cached: float = 0.0
    operation: str = "chat"


CONVERSATION = Shape(1_020, 129, 0.7, calls=4, gap_s=40, growth=250, cached=0.5)
COMPLETION = Shape(1_469, 13, 1.0, calls=12, gap_s=25)
RETRIEVAL = Shape(9_000, 343, 0.6, calls=2, gap_s=30, cached=0.3)
EXTRACTION = Shape(4_000, 300, 0.5, calls=40, gap_s=3, cached=0.2)
EMBEDDING = Shape(600, 0, 0.8, calls=30, gap_s=1, operation="embeddings")
AGENT = Shape(40_000, 222, 0.5, calls=68, gap_s=20, growth=1_000, cached=0.97, operation="invoke_agent")

MODELS = {
    "claude-opus-4-5": "anthropic",
    "claude-sonnet-4-5": "anthropic",
    "claude-haiku-4-5": "anthropic",
    "gpt-4o": "openai",
    "gpt-4.1-mini": "openai",
    "text-embedding-3-small": "openai",
    "gemini-2.5-flash": "google",
    "gemini-2.5-pro": "google",
}


@dataclass(frozen=True, slots=True)
class Team:
    """Habits of one team.

    Attributes:
        share: Part of the company's calls.
        hours: Weight of each hour of the day, UTC.
        keys: API keys by environment.
        models: Models by weight.
    """

    name: str
    share: float
    shape: Shape
    hours: tuple[int, ...]
    projects: tuple[str, ...]
    keys: dict[str, tuple[str, ...]]
    models: dict[str, float]
    weekend: float = 0.15


def _keys(team: str, production: int, development: int) -> dict[str, tuple[str, ...]]:
    return {
        "prod": tuple(f"key-{team}-prod-{n}" for n in range(1, production + 1)),
        "dev": tuple(f"key-{team}-dev-{n}" for n in range(1, development + 1)),
    }


TEAMS: tuple[Team, ...] = (
    Team("support", 0.22, CONVERSATION, CUSTOMERS, ("chatbot", "triage"), _keys("support", 3, 1),
         {"gpt-4.1-mini": 0.8, "gpt-4o": 0.2}, weekend=0.8),
    Team("search", 0.18, EMBEDDING, CUSTOMERS, ("index", "suggest"), _keys("search", 2, 1),
         {"text-embedding-3-small": 1.0}, weekend=0.9),
    Team("assistant", 0.12, RETRIEVAL, CUSTOMERS, ("answers", "help"), _keys("assistant", 2, 1),
         {"gemini-2.5-flash": 0.6, "gpt-4o": 0.4}, weekend=0.7),
    Team("ide", 0.22, COMPLETION, OFFICE, ("editor",), _keys("ide", 1, 2), {"claude-haiku-4-5": 1.0}),
    Team("platform", 0.08, AGENT, OFFICE, ("repo-agent", "migrations"), _keys("platform", 2, 2),
         {"claude-sonnet-4-5": 0.7, "claude-opus-4-5": 0.3}),
    Team("documents", 0.12, EXTRACTION, NIGHT, ("invoices", "contracts"), _keys("documents", 2, 1),
         {"gemini-2.5-flash": 0.9, "gemini-2.5-pro": 0.1}, weekend=1.0),
    Team("marketing", 0.04, CONVERSATION, OFFICE, ("copy", "campaigns"), _keys("marketing", 1, 1), {"gpt-4o": 1.0}),
    Team("research", 0.02, RETRIEVAL, OFFICE, ("notebooks",), _keys("research", 1, 2),
         {"gemini-2.5-pro": 0.6, "claude-opus-4-5": 0.4}),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Runaway:
    """The ground truth: whose agent ran away, on what, and when. It runs on until `ends_at` if nobody stops it.

    Attributes:
        gap_s: Mean seconds between its calls.
        growth: Tokens each call adds to the context; at `context_max` it is compacted to `context_min`.
        cached: Share of the input that still comes from the prompt cache.
    """

    started_at: float
    ends_at: float
    seed: int = 1
    team: str = "platform"
    project: str = "repo-agent"
    environment: str = "dev"
    key: str = "key-platform-dev-2"
    model: str = "claude-opus-4-5"
    session: str = "platform-runaway"
    gap_s: float = 8.0
    context_min: int = 95_000
    context_max: int = 190_000
    growth: int = 380
    cached: float = 0.15
    output_tokens: int = 110

    def owns(self, event: UsageEvent) -> bool:
        """Tell whether an event is one of its calls."""
        return event.session_id == self.session

    def events(self) -> Iterator[UsageEvent]:
        """Its calls in time order."""
        random = Random(f"{self.seed}/{self.session}")
        at, context, n = self.started_at, self.context_min, 0
        while at < self.ends_at:
            yield UsageEvent(
                request_id=f"{self.session}-{n}",
                source=SOURCE,
                time=round(at, 3),
                api_key_id=self.key,
                team=self.team,
                project=self.project,
                environment=self.environment,
                session_id=self.session,
                provider=MODELS[self.model],
                model=self.model,
                operation="invoke_agent",
                input_tokens=context,
                cache_read_tokens=int(context * self.cached),
                output_tokens=self.output_tokens,
                latency_ms=6_500,
            )
            n += 1
            at += random.uniform(0.8, 1.2) * self.gap_s
            context = context + self.growth if context + self.growth <= self.context_max else self.context_min

    def cost_until(self, at: float, price: Callable[[UsageEvent], NanoUsd]) -> NanoUsd:
        """Return what it has cost before `at`, nano-USD, by the caller's price book."""
        return sum(price(event) for event in self.events() if event.time < at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Days of traffic; equal fields give equal events.

    Attributes:
        start: Midnight UTC of the first day, epoch seconds.
        calls_per_day: Expected calls of a working day, the runaway's apart.
        runaway_at_h: Hours after `start` at which the runaway begins; None for none. It ends with the last day.
    """

    seed: int = 1
    start: float = MONDAY
    days: int = 1
    calls_per_day: int = 30_000
    runaway_at_h: float | None = 14.5
    teams: tuple[Team, ...] = field(default=TEAMS)

    @property
    def end(self) -> float:
        """The midnight after the last day."""
        return self.start + self.days * DAY_S

    @property
    def runaway(self) -> Runaway | None:
        """The ground truth, if there is a runaway."""
        if self.runaway_at_h is None:
            return None
        return Runaway(started_at=self.start + self.runaway_at_h * HOUR_S, ends_at=self.end, seed=self.seed)

    def events(self) -> Iterator[UsageEvent]:
        """All calls in time order."""
        layers: list[Iterable[UsageEvent]] = [self._of(team) for team in self.teams]
        if self.runaway is not None:
            layers.append(self.runaway.events())
        return heapq.merge(*layers, key=lambda event: event.time)

    def _of(self, team: Team) -> Iterator[UsageEvent]:
        """One team's calls in time order: sessions begin in order, their later calls wait in a heap."""
        random = Random(f"{self.seed}/{team.name}")
        waiting: list[tuple[float, str, UsageEvent]] = []
        for n, at in enumerate(self._session_starts(team, random)):
            while waiting and waiting[0][0] <= at:
                yield heapq.heappop(waiting)[2]
            for event in _session(team, f"{team.name}-{n}", at, random):
                if event.time < self.end:
                    heapq.heappush(waiting, (event.time, event.request_id, event))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _session_starts(self, team: Team, random: Random) -> Iterator[float]:
        """A Poisson process whose rate follows the team's hours, by thinning."""
        sessions_per_day = self.calls_per_day * team.share / team.shape.calls
        peak_per_s = sessions_per_day * max(team.hours) / sum(team.hours) / HOUR_S
        at = self.start
        while (at := at + random.expovariate(peak_per_s)) < self.end:
            weekday = int(at // DAY_S + 3) % 7  # the epoch was a Thursday
            weight = team.hours[int(at % DAY_S // HOUR_S)] * (team.weekend if weekday >= 5 else 1.0)
            if random.random() * max(team.hours) < weight:
                yield at


def _session(team: Team, name: str, at: float, random: Random) -> Iterator[UsageEvent]:
    """The calls of one session: one key, one model, a context that grows."""
    shape = team.shape
    environment = random.choices(tuple(team.keys), (0.9, 0.1))[0]
    key, project = random.choice(team.keys[environment]), random.choice(team.projects)
    model = random.choices(tuple(team.models), tuple(team.models.values()))[0]
    context = _lognormal(shape.input_tokens, shape.spread, random)
    previous = 0
    for n in range(1 + int(random.expovariate(1 / max(shape.calls - 0.5, 0.5)))):
        failed = random.random() < 0.008
        output = 0 if failed or not shape.output_tokens else _lognormal(shape.output_tokens, shape.spread, random)
        yield UsageEvent(
            request_id=f"{name}-{n}",
            source=SOURCE,
            time=round(at, 3),
            api_key_id=key,
            team=team.name,
            project=project,
            environment=environment,
            session_id=name,
            provider=MODELS[model],
            model=model,
            operation=shape.operation,
            input_tokens=0 if failed else context,
            cache_read_tokens=0 if failed else int(min(previous, context) * shape.cached),
            output_tokens=output,
            latency_ms=200 + output * 15,
            error_code=random.choice(("429", "500", "timeout")) if failed else None,
        )
        previous = previous if failed else context
        grown = context + int(random.expovariate(1 / shape.growth)) if shape.growth else CONTEXT_MAX + 1
        context = grown if grown <= CONTEXT_MAX else _lognormal(shape.input_tokens, shape.spread, random)
        at += _lognormal(shape.gap_s, 0.8, random)


def _lognormal(median: float, sigma: float, random: Random) -> int:
    return max(1, int(random.lognormvariate(math.log(median), sigma)))
