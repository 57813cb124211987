"""A topic of two partitions over a turn of the month, with everything in it that must not depend on chance.

Forwards, corrections (of what is elsewhere, to come, replaced before), duplicates, poison, ticks, price fixes, untagged
and unplaced money, calls that are too dear, keys that change hands, a policy that changes, months that end by three
calendars, a key that runs away.
"""

import random
from dataclasses import replace
from typing import Any

from enginebusy import NODES, POLICIES
from enginelog import START, Cut, Record, engine, event, policy, versions
from enginelog import seal as sealed
from spendbrake.schemas.command import Delta
from spendbrake.schemas.control import Owner, OwnersVersion
from spendbrake.schemas.usage import MAX_TOKENS, UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.step import Engine

PARTITIONS = 2
BEGINS = START + 24.5 * 86_400
"""29 January, noon."""
USD = 10**9


DEAR = {"provider": "openai", "model": "dear", "input_usd_per_mtok": 3_000, "output_usd_per_mtok": 3_000}


def _document(team: float, **detection: Any) -> dict[str, Any]:
    params = {"new_model": {"settled_s": 3600}, "runaway_session": {"settled_s": 3600, "min_sessions": 3}}
    return policy(
        nodes=NODES,
        defaults={"team": {"monthly_budget_usd": team, "parent": "west"}, "project": {"monthly_budget_usd": 2}},
        policies=POLICIES,
        prices={"overrides": [DEAR]},
        detection={"enabled": True, "floor_usd_h": 0.05, "params": params} | detection,
    )


VERSIONS = versions((0.0, _document(6)), (BEGINS + 200_000, _document(3, false_alarms_per_team_week=2)))
OWNERS = [
    OwnersVersion(
        version=n + 1,
        valid_from=at,
        published_at=max(at - 700, 0.0),
        owners=(Owner(key="k0", team=to, project="p1"), Owner(key="k5", team="t2")),
    )
    for n, (at, to) in enumerate(((0.0, "t0"), (BEGINS + 150_000, "t3")))
]


def new_engine() -> Engine:
    return engine(partitions=PARTITIONS, versions=VERSIONS, owners=OWNERS)


class Topic:
    """The partitions as they fill: each record is stepped over at once, and forwards go where they are sent."""

    def __init__(self) -> None:
        self.logs: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self._of = [new_engine() for _ in range(PARTITIONS)]
        self._states = [of.new_state(number, 1) for number, of in enumerate(self._of)]

    def put(self, number: int, record: Record) -> None:
        self.logs[number].append(record)
        cut = Cut([record], len(self.logs[number]) - 1, number)
        for out in self._of[number].step(self._states[number], cut).records:
            if out.topic == "usage.v1":
                assert out.partition is not None
                self.put(out.partition, as_record(out))


def as_record(out: OutRecord) -> Record:
    return Record(out.value, out.at, out.key, tuple(out.headers))


def eventful(seed: int, n: int) -> list[list[Record]]:
    """The logs of all partitions."""
    rnd, topic, now = random.Random(seed), Topic(), BEGINS
    fixes, fixed = random.Random(-1 - seed), list[Record]()
    dear, sent = random.Random(-101 - seed), list[UsageEvent]()
    for i in range(n):
        now += rnd.choice((0, 0, 0.3, 4, 30, 200)) if i % (n // 8) else 12.4 * 3600
        number, kind = rnd.randrange(PARTITIONS), rnd.random()
        if kind < 0.06:
            for each in range(PARTITIONS):
                topic.put(each, Record(b"", now, b"", sealed("tick", "usage.v1", b"", b"", b"secret of the tests")))
        elif kind < 0.09:
            topic.put(number, Record(rnd.choice([b"\0\0\0\0\1zz", b"{}", b"\xff", None]), now))
        else:
            one = _call(rnd, i, n, now) if kind < 0.8 or not sent else _again(rnd, i, now, sent)
            if dear.random() < 0.03:
                one = replace(one, model="dear", cost=None, input_tokens=dear.choice((10, MAX_TOKENS)))
            sent.append(one)
            if fixes.random() < 0.1:
                fixed.append(_fix(fixes, i, now, one))
                topic.put(partition_of(fixed[-1].key or b"", PARTITIONS), fixed[-1])
            elif fixed and fixes.random() < 0.05:
                again = fixes.choice(fixed[-5:])
                topic.put(partition_of(again.key or b"", PARTITIONS), replace(again, at=now))
            topic.put(number, Record(encode_usage_json(one) if rnd.random() < 0.2 else encode(one), now))
    for each in range(PARTITIONS):
        topic.put(each, Record(b"", now + 7_200, b"", sealed("tick", "usage.v1", b"", b"", b"secret of the tests")))
    return topic.logs


def _fix(rnd: random.Random, i: int, now: float, one: UsageEvent) -> Record:
    """A price fix of a call's names, over some minutes, a few of them of the month before or too old; some apart."""
    minutes = {
        int(now - rnd.choice((0, 70, 5_000, 100_000, 300_000, 61 * 86_400 if rnd.random() < 0.05 else 0))) // 60: amount
        for amount in rnd.sample(range(-900_000_000, 900_000_000), rnd.randint(1, 4))
    }
    delta = Delta(
        id=f"fix-{i}",
        version=1,
        team=rnd.choice(("t1", "t2", "t3")),
        key=rnd.choice(("k1", "k2")),
        provider=one.provider,
        model=one.model,
        project=one.project or "",
        minutes=minutes,
    )
    key, value = delta.team.encode(), encode(delta)
    kind = "delta_unplaced" if rnd.random() < 0.3 else "delta"
    return Record(value, now, key, sealed(kind, "usage.v1", key, value, b"secret of the tests"))


def _call(rnd: random.Random, i: int, n: int, now: float) -> UsageEvent:
    age = rnd.choice((0, 0, 0, 1, 20, 300, 4_000, 90_000, 260_000, 70 * 86_400, -100, -700))
    runaway = 3 * n // 8 < i < 5 * n // 8 and rnd.random() < 0.5
    return event(
        i,
        now if runaway else now - age,
        team="t1" if runaway else rnd.choice((None, "t0", "t1", "t2", "t3")),
        api_key_id="k-loop" if runaway else f"k{rnd.randrange(6)}",
        model=rnd.choice(("gpt-4o", "gpt-4o", "claude-opus-4-1", "unheard-of")),
        project=rnd.choice((None, "p0", "p1")),
        session_id="loop" if runaway else f"s{rnd.randrange(60)}",
        cost=90_000_000 if runaway else rnd.choice((None, rnd.randrange(60_000_000))),
    )


def _again(rnd: random.Random, i: int, now: float, sent: list[UsageEvent]) -> UsageEvent:
    """Something sent before once more, or its correction, of another team perhaps; or one of what is still to come."""
    one = rnd.choice(sent[-40:])
    if rnd.random() < 0.3:
        return one
    original = replace(one, kind="final", replaces=None)
    if rnd.random() < 0.2:
        original = replace(original, request_id=f"r{i + 3}")
    team = rnd.choice((original.team, original.team, "t0", "t3"))
    return replace(
        original, request_id=f"r{i}", time=now, team=team, kind="correction", replaces=original,
        cost=rnd.choice((0, 5_000_000, 2 * USD)),
    )  # fmt: skip
