"""Usage events of many teams, in bulk: each team has some keys, two models, one project, and sessions.

Events are cut together from encoded ones, 2 us each, so that what makes them keeps ahead of what takes them. Every
population checks one of its own events against the product's encoder.
"""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Literal, NamedTuple

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json

Wire = Literal["avro", "json"]
MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-haiku-4-5"))
TAILS = 40_000
"""Distinct events, but for ids and times."""
ID = "{:016d}"
SAME_TIME = 50
"""Consecutive events of one time."""
SETTLING_S, RATE = 40.0, 150_000.0
"""A backlog's first third comes over so long that each team has closed buckets; the rest at the rate that is to be
held: each team closes a bucket with every 1,500,000 events, however fast they were sent."""


class Piece(NamedTuple):
    """So many consecutive events of a backlog, over so long."""

    n: int
    at: float
    over_s: float


def backlog(n: int, ends: float, size: int) -> Iterator[Piece]:
    """Yield pieces of at most `size` of `n` events of which the last comes at `ends`."""
    third = n // 3
    for count, rate, at in (
        (third, third / SETTLING_S, ends - (n - third) / RATE - SETTLING_S),
        (n - third, RATE, ends - (n - third) / RATE),
    ):
        for first in range(0, count, size):
            piece = min(size, count - first)
            yield Piece(piece, at + first / rate, piece / rate)


class Population:
    """An endless stream of events, the same for the same arguments.

    Args:
        teams: Share the same number of sessions, as long as each key has four: what differs is the teams alone.
        keys: API keys of each team; with them it has five series more: itself, project, environment, two models.
        duplicates: Share of events that are sent a second time.
    """

    def __init__(
        self,
        teams: int,
        wire: Wire = "avro",
        *,
        keys: int = 2,
        seed: int = 1,
        first_id: int = 0,
        duplicates: float = 0.0,
    ) -> None:
        self._random = Random(seed)
        self._wire, self._next, self._duplicates = wire, first_id, duplicates
        self.teams, self.keys = teams, keys
        self._sessions = max(4, TAILS // (teams * keys))
        self.doubled = 0
        """Events that were sent a second time so far."""
        blank = [self._event(i % teams, i // teams) for i in range(max(teams * keys, TAILS))]
        self._random.shuffle(blank)
        self._tails = [(str(event.team).encode(), self._tail(event)) for event in blank]
        probe = replace(blank[0], request_id=ID.format(7), time=1_767_571_200.25)
        assert self._cut(self._tails[0][1], 7, _time(wire, probe.time)) == _encoded(wire, probe)

    def __len__(self) -> int:
        """Return after how many events each team and session was seen."""
        return len(self._tails)

    def events(self, n: int, at: float, over_s: float = 0.0) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of `n` events whose times run from `at` over `over_s` seconds."""
        held: list[tuple[bytes, bytes]] = []
        time = b""
        for i in range(n):
            if i % SAME_TIME == 0:
                time = _time(self._wire, at + over_s * i / n)
            if held and self._random.random() < self._duplicates:
                self.doubled += 1
                yield held[-1]
                continue
            team, tail = self._tails[self._next % len(self._tails)]
            pair = team, self._cut(tail, self._next, time)
            self._next += 1
            held[:] = [pair]
            yield pair

    def _event(self, team: int, turn: int) -> UsageEvent:
        draw = self._random
        provider, model = MODELS[turn % len(MODELS)]
        key = f"key-{team}-{turn // 2 % self.keys if turn >= self.keys else turn}"
        return UsageEvent(
            request_id=ID.format(0), time=0.0, api_key_id=key, provider=provider, model=model, team=f"team-{team}",
            project=f"project-{team}", environment="prod", session_id=f"{key}-{draw.randrange(self._sessions)}",
            input_tokens=int(draw.lognormvariate(7, 0.7)) + 300, cache_read_tokens=draw.randrange(300),
            output_tokens=int(draw.lognormvariate(5, 0.7)) + 1,
        )  # fmt: skip

    def _tail(self, event: UsageEvent) -> bytes:
        """Return the encoded event past its time: what comes before is the same for all, but for id and time."""
        value = _encoded(self._wire, event)
        zero = _time(self._wire, 0.0)
        return value[len(self._head(0)) + len(zero) :]

    def _head(self, number: int) -> bytes:
        name = ID.format(number).encode()
        return b"\x00\x00\x00\x00\x01\x20" + name + b"\x00" if self._wire == "avro" else _JSON % name

    def _cut(self, tail: bytes, number: int, time: bytes) -> bytes:
        return self._head(number) + time + tail


_JSON = b'{"request_id":"%s","time":'


def _encoded(wire: Wire, event: UsageEvent) -> bytes:
    return encode(event) if wire == "avro" else encode_usage_json(event)


def _time(wire: Wire, at: float) -> bytes:
    if wire == "json":
        return repr(at).encode()
    left, out = round(at * 1_000_000) << 1, bytearray()  # zigzag of what is never negative
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def bench_policy(detection: bool = True) -> dict[str, Any]:
    """Return the starter policy with budgets that no bench spends, and its detectors on or off."""
    from spendbrake.streams.budgets.load import load
    from spendbrake.streams.budgets.starter import starter_text

    document = load(starter_text()).model_dump(mode="json", exclude_unset=True)
    document["defaults"]["team"] |= {"monthly_budget_usd": 900_000_000, "monthly_allocation_usd": 950_000_000}
    document["detection"]["enabled"] = detection
    return document
