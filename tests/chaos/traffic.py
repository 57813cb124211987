"""The producer under chaos: calls of a company, sent as badly as producers send them. It keeps no books."""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from chaos.company import MODELS, PROJECTS, Company
from chaos.poisons import poisons
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json

Headers = tuple[tuple[str, bytes], ...]
Send = Callable[[bytes | None, bytes | None, int | None, Headers], None]
"""Puts one record: key, value, partition (None = by the key), headers."""

SLICE_S, CATCH_UP_S = 0.05, 2.0
TOKENS = tuple((n, n // 3, 40 + n // 7) for n in range(300, 6_300, 60))
"""(input, of it read from a cache, output) of calls: so few that a recount can keep their prices."""
LATE_S = 1_800.0
AHEAD_S = 3_600.0
"""Too far in the future to have a place."""
HELD_S = 4.0
RECENT = 20_000


@dataclass(frozen=True)
class Habits:
    """How often each bad habit shows, a share of all calls."""

    duplicate: float = 0.05
    late: float = 0.05
    held: float = 0.04
    corrected: float = 0.02
    poison: float = 0.002
    misplaced: float = 0.05
    json: float = 0.25


@dataclass
class Sent:
    """What was put on the topic, by kind; `reasons` of what the service must refuse."""

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class Traffic(threading.Thread):
    """Sends at a rate until it is told to end; a failure is kept for whoever joins it.

    Args:
        rate: Calls a second; copies, corrections and poison come on top. Two seconds it catches up, no more.
    """

    def __init__(
        self, company: Company, rate: float, partitions: int, send: Send, habits: Habits | None = None
    ) -> None:
        super().__init__(name="traffic", daemon=True)
        self.sent, self.failure = Sent(), None
        self._company, self._rate, self._partitions, self._send = company, rate, partitions, send
        self._habits = habits or Habits()
        self._chance = random.Random(f"traffic {company.seed}")
        self._teams, self._weights = list(company.weights), list(company.weights.values())
        self._numbers, self._poisons = count(), self._endless_poison()
        self._recent: deque[UsageEvent] = deque(maxlen=RECENT)
        self._corrected: set[str] = set()
        self._held: deque[tuple[float, UsageEvent]] = deque()
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            began = due = time.monotonic()
            while not self._ending.wait(max(0.0, due - time.monotonic())):
                self.slice(int(self._rate * SLICE_S))
                due = max(due + SLICE_S, time.monotonic() - CATCH_UP_S)
            self.release(float("inf"))
            self.seconds = time.monotonic() - began
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        """Stop after the slice at hand, and send what is held back."""
        self._ending.set()
        self.join(120)
        if self.failure is not None:
            raise self.failure

    def slice(self, calls: int) -> None:
        chance, habits = self._chance.random, self._habits
        self.release(time.monotonic())
        for team in self._chance.choices(self._teams, self._weights, k=calls):
            event = self._call(team)
            if chance() < habits.held:
                self._held.append((time.monotonic() + HELD_S, event))
                self.sent.kinds["out of order"] += 1
            else:
                self._put(event)
            self._recent.append(event)
            if chance() < habits.corrected:
                self._correct()
            if chance() < habits.duplicate:
                self.sent.kinds["duplicates"] += 1
                self._put(self._recent[int(chance() * len(self._recent))])
            if chance() < habits.poison:
                next(self._poisons)

    def release(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            self._put(self._held.popleft()[1])

    def _call(self, team: str) -> UsageEvent:
        chance = self._chance.random
        provider, model = MODELS[int(chance() * len(MODELS))]
        tokens, cached, output = TOKENS[int(chance() * len(TOKENS))]
        late = chance() < self._habits.late
        if late:
            self.sent.kinds["late"] += 1
        self.sent.kinds["calls"] += 1
        return UsageEvent(
            request_id=f"r-{next(self._numbers)}",
            time=time.time() - (chance() * LATE_S if late else chance() * 2),
            api_key_id=f"key-{team}-{int(chance() * 3)}",
            provider=provider,
            model=model,
            team=team,
            project=PROJECTS[int(chance() * 3)] if chance() < 0.8 else None,
            environment="prod" if chance() < 0.7 else "dev",
            session_id=f"s-{int(chance() * 500)}",
            input_tokens=tokens,
            cache_read_tokens=cached,
            output_tokens=output,
        )

    def _correct(self) -> None:
        """Replace a recent call: by less or more of the same, or by the same of another team; each only once."""
        original = self._recent[int(self._chance.random() * len(self._recent))]
        if original.request_id in self._corrected:
            return
        self._corrected.add(original.request_id)
        kind = self._chance.random()
        moved = self._chance.choice(self._teams) if kind < 0.15 else original.team
        correction = replace(
            original,
            request_id=f"{original.request_id}-corrected",
            kind="correction",
            replaces=original,
            team=moved,
            api_key_id=f"key-{moved}-{int(self._chance.random() * 3)}",
            output_tokens=original.output_tokens * (0 if kind < 0.5 else 3),
        )
        self.sent.kinds["corrections"] += 1
        self._put(correction)
        if self._chance.random() < self._habits.duplicate:
            self.sent.kinds["duplicates"] += 1
            self._put(correction)

    def _put(self, event: UsageEvent) -> None:
        partition = None
        if self._chance.random() < self._habits.misplaced:
            partition = int(self._chance.random() * self._partitions)
        value = encode_usage_json(event) if self._chance.random() < self._habits.json else encode(event)
        self._record((event.team or "").encode(), value, partition, ())

    def _endless_poison(self) -> Iterator[None]:
        for number in count():
            for reason, (key, value, headers) in poisons(number, time.time()):
                self.sent.kinds["poison"] += 1
                self.sent.reasons[reason] += 1
                self._record(key, value, int(self._chance.random() * self._partitions), headers)
                yield
            self.sent.kinds["poison"] += 1
            self.sent.reasons["unplaced_future"] += 1
            ahead = replace(self._call(self._teams[0]), time=time.time() + AHEAD_S)
            self._record((ahead.team or "").encode(), encode(ahead), None, ())
            yield

    def _record(self, key: bytes | None, value: bytes | None, partition: int | None, headers: Headers) -> None:
        self.sent.records += 1
        self._send(key, value, partition, headers)
