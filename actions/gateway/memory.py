"""What a Guard remembers of Redis' answers, for while Redis is away. It asks nobody and counts nothing."""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

from spendbrake.actions.gateway.verdict import CheckResult, Marks
from spendbrake.schemas.decision import OnUnavailable

ANSWERS_PER_KEY = 64
"""Models, environments and projects of one key that `last_decision` tells apart."""


class Call(NamedTuple):
    """One question to Guard."""

    key: str
    model: str
    environment: str | None
    project: str | None


@dataclass(slots=True)
class Memory:
    """The last answer for a call like this one, and its rate, kept here while Redis is away."""

    reply: bytes | str
    result: CheckResult
    tokens: float
    at: float

    def recall(self, now: float, marks: Marks) -> CheckResult | None:
        """Return the answer if it still stands at `now`; under a throttle, by this process's own bucket."""
        result = self.result
        if result.expires_at is not None and result.expires_at <= now:
            return None
        result = replace(result, source="memory", marks=marks)
        if result.verdict not in ("allow", "throttle") or result.max_rps is None:
            return result
        full = max(1, result.burst or math.ceil(result.max_rps))
        self.tokens = min(full, self.tokens + max(0.0, now - self.at) * result.max_rps)
        self.at = max(self.at, now)
        if self.tokens < 1:
            wait = (1 - self.tokens) / result.max_rps
            return replace(result, verdict="throttle", status=429, code="rate_limited", retry_after=wait, remaining=0)
        self.tokens -= 1
        return replace(
            result, verdict="allow", status=200, code="", reason="", retry_after=None, remaining=int(self.tokens)
        )


class Memories:
    """Answers of the keys seen last, and what holds for a key when there are none; for threads."""

    def __init__(self, n_keys: int) -> None:
        self._n_keys = n_keys
        self._keys: OrderedDict[str, tuple[OnUnavailable | None, dict[Call, Memory]]] = OrderedDict()
        self._lock = threading.Lock()

    def same(self, call: Call, reply: bytes | str) -> CheckResult | None:
        """Return the remembered result if it was read from these very bytes and has no rate to follow."""
        with self._lock:
            _, answers = self._keys.get(call.key, (None, {}))
            memory = answers.get(call)
            if memory is None or memory.reply != reply or memory.result.max_rps is not None:
                return None
            self._keys.move_to_end(call.key)
            return memory.result

    def put(self, call: Call, mode: OnUnavailable | None, memory: Memory) -> None:
        """Remember an answer, and forget the key not asked about for longest when there are too many."""
        with self._lock:
            _, answers = self._keys.get(call.key, (None, {}))
            answers.pop(call, None)
            if len(answers) >= ANSWERS_PER_KEY:
                del answers[next(iter(answers))]
            answers[call] = memory
            self._keys[call.key] = (mode, answers)
            self._keys.move_to_end(call.key)
            if len(self._keys) > self._n_keys:
                self._keys.popitem(last=False)

    def mode(self, key: str) -> OnUnavailable | None:
        """Return the key's own on_unavailable, if it was ever heard."""
        with self._lock:
            return self._keys.get(key, (None, {}))[0]

    def recall(self, call: Call, now: float, marks: Marks) -> CheckResult | None:
        """Return the last answer for `call` as it stands at `now`."""
        with self._lock:
            memory = self._keys.get(call.key, (None, {}))[1].get(call)
            return memory.recall(now, marks) if memory is not None else None
