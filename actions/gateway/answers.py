"""What a guard answers: what Redis says, what it remembers of it, or what on_unavailable says. It asks nobody."""

import hashlib
import json
import math
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from spendbrake.actions.gateway.contract import Layout, encoded
from spendbrake.actions.gateway.verdict import CheckResult, Marks
from spendbrake.schemas.decision import STATUS, OnUnavailable, Verdict

RETRY_UNAVAILABLE_S = 5.0

ANSWERS_PER_KEY = 64
"""Models, environments and projects of one key that `last_decision` tells apart."""
REMEMBERED_CHARS = 1_024
"""Of a question; callers choose the names in it, and longer ones would fill a gateway's memory."""


class Call(NamedTuple):
    """One question to Guard."""

    key: str
    model: str
    environment: str | None
    project: str | None


class Script(NamedTuple):
    """A Lua script beside this file."""

    text: bytes
    sha: str

    @classmethod
    def named(cls, name: str) -> "Script":
        """Return the script in a file."""
        text = Path(__file__).with_name(name).read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


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
            if sum(len(each) for each in call if each) <= REMEMBERED_CHARS:
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


class Answers:
    """All of a check but the round trip."""

    def __init__(self, prefix: str, on_unavailable: OnUnavailable, stale_after_s: float, memory: int) -> None:
        if on_unavailable not in get_args(OnUnavailable):
            raise ValueError(f"on_unavailable: open, closed or last_decision, got {on_unavailable!r}")
        if not stale_after_s > 0:
            raise ValueError(f"stale_after_s: above 0, got {stale_after_s!r}")
        if memory < 1:
            raise ValueError(f"memory: at least one key, got {memory!r}")
        self._layout = Layout(prefix)
        self._on_unavailable = on_unavailable
        self._stale_after_s = min(stale_after_s, 1e18)
        self._memories = Memories(memory)
        self.unavailable: Counter[str] = Counter()
        """Checks answered without fresh limits, by cause: timeout, connection, error, stale, missing."""

    @property
    def layout(self) -> Layout:
        """Return the names of the keys in Redis."""
        return self._layout

    @property
    def stale_after_s(self) -> float:
        """Return the age past which a mark vouches for nothing, seconds."""
        return self._stale_after_s

    def mode(self, key: str) -> OnUnavailable:
        """Return what holds for a key whose limits cannot be known."""
        return self._memories.mode(key) or self._on_unavailable

    def arguments(self, call: Call, now: float) -> tuple[Any, ...]:
        """Return what follows the script in EVAL: the number of keys, KEYS and ARGV."""
        key, model, environment, project = call
        return (
            1,
            encoded(self._layout.key(key)),
            encoded(model),
            encoded(environment or ""),
            encoded(project or ""),
            now,
            self._stale_after_s,
        )

    def answer(self, call: Call, reply: bytes | str, now: float) -> CheckResult:
        """Return what the script's reply means for `call`."""
        same = self._memories.same(call, reply)
        if same is not None:
            return same
        told = json.loads(reply)
        marks: Marks = told["marks"]
        if told["known"] == "none":
            return self.without(call, now, marks)
        result = _result(told, call.model)
        if marks == "fresh":
            self._memories.put(call, told["on_unavailable"], Memory(reply, result, float(result.remaining or 0), now))
            return result
        self.unavailable[marks] += 1
        if told.get("on_unavailable") != "last_decision" or not result.allowed:
            return result
        remembered = self._memories.recall(call, now, marks)
        if remembered is None or (remembered.allowed and result.verdict != "allow"):
            return result
        return remembered

    def without(self, call: Call, now: float, cause: str) -> CheckResult:
        """Return the answer for `call` when its limits cannot be known, and count `cause`."""
        self.unavailable[cause] += 1
        mode = self.mode(call.key)
        marks: Marks = "missing" if cause == "missing" else "unread"
        if mode not in ("open", "last_decision"):
            return CheckResult(
                verdict="block",
                status=503,
                model=call.model,
                code="unavailable",
                reason=f"limits cannot be known ({cause}) and on_unavailable is closed",
                retry_after=RETRY_UNAVAILABLE_S,
                known="none",
                marks=marks,
                source="unavailable",
            )
        remembered = self._memories.recall(call, now, marks) if mode == "last_decision" else None
        return remembered or CheckResult(
            verdict="allow", status=200, model=call.model, known="none", marks=marks, source="unavailable"
        )


def _result(told: dict[str, Any], model: str) -> CheckResult:
    get = told.get
    verdict: Verdict = told["verdict"] if told["verdict"] in STATUS else "block"
    return CheckResult(
        verdict=verdict,
        status=int(get("status") or STATUS[verdict]),
        model=get("model") or model,
        code=get("code") or "",
        reason=get("reason") or "",
        action_id=get("action_id") or "",
        node=get("node") or "",
        policy=get("policy") or "",
        retry_after=get("retry_after"),
        reset_at=get("reset_at"),
        expires_at=get("expires_at"),
        max_rps=get("max_rps"),
        burst=get("burst"),
        remaining=get("remaining"),
        would=get("would") or "",
        would_action=get("would_action") or "",
        known=told["known"],
        marks=told["marks"],
    )


def cause_of(error: Exception) -> str:
    """Return what kept Redis from answering, in a word."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, RedisConnectionError | OSError) else "error"
