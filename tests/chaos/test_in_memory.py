"""The producer, the recount and the engine without any server: they agree before anything goes wrong."""

import random
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest

from chaos.books.recount import recount
from chaos.company import Company, company
from chaos.traffic import Traffic
from chaos.verdict import Verdict, notice_of, notices, series_of, turn_of
from enginelog import Cut, Record, version
from kafka.deployment import PARTITIONS, SECRET, Kept
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, USAGE, USAGE_DLQ
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.step import Engine, EngineSettings

SLICES, CALLS = 20, 300


class Logs:
    """The partitions of usage.v1, in memory."""

    def __init__(self) -> None:
        self.of: dict[int, list[Record]] = defaultdict(list)
        self.now = time.time()

    def put(
        self, key: bytes | None, value: bytes | None, partition: int | None, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        number = partition_of(key or b"", PARTITIONS) if partition is None else partition
        self.of[number].append(Record(value, self.now, key, headers))

    def kept(self, number: int) -> list[Kept]:
        records = enumerate(self.of[number])
        return [Kept(number, i, r.key, r.value, round(r.at * 1000), r.headers) for i, r in records]


class Counted:
    """An engine that reads the logs to their ends, forwards included, in batches of any size."""

    def __init__(self, made: Company, logs: Logs, chance: random.Random) -> None:
        book = RuleBook(PARTITIONS, [version(made.policy("http://slack.invalid/", "http://hook.invalid/"))])
        engine = Engine(book, EngineSettings(partitions=PARTITIONS, secrets=(SECRET.encode(),)))
        self.states = [engine.new_state(number, 1) for number in range(PARTITIONS)]
        self.records: list[OutRecord] = []
        done = [0] * PARTITIONS
        while any(done[number] < len(logs.of[number]) for number in range(PARTITIONS)):
            for number, first in enumerate(done):
                records = logs.of[number][first : first + chance.randint(1, 700)]
                if not records:
                    continue
                done[number] += len(records)
                for out in engine.step(self.states[number], Cut(records, first, number)).records:
                    self.records.append(out)
                    if out.topic == USAGE.name:
                        logs.put(out.key, out.value, out.partition, tuple(out.headers))

    def of(self, topic: str) -> list[OutRecord]:
        return [record for record in self.records if record.topic == topic]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_engine_comes_to_what_the_recount_does(seed: int) -> None:
    made = company(seed, SLICES * CALLS * 9_000_000, datetime.now(UTC).date())
    logs, verdict = Logs(), Verdict()
    traffic = Traffic(made, CALLS, PARTITIONS, logs.put)
    for _ in range(SLICES):
        traffic.slice(CALLS)
    traffic.release(float("inf"))
    counted = Counted(made, logs, random.Random(seed))
    expected = recount(made, {number: logs.kept(number) for number in range(PARTITIONS)})

    cost, calls, apart = series_of(counted.states)
    verdict.compare("cost", cost, expected.cost)
    verdict.compare("calls", calls, expected.calls)
    verdict.compare("apart", apart, expected.apart)
    findings = [decode(Finding, record.value or b"") for record in counted.of(FINDINGS.name)]
    verdict.sets("findings", map(turn_of, findings), expected.turns)
    actions = [decode(Action, record.value or b"") for record in counted.of(ACTIONS.name)]
    told = [notice_of(action) for action in actions if action.effect in ("slack", "webhook")]
    verdict.sets("notifications", told, notices(expected.turns))
    dead = Counter(dict(record.headers)["sb-reason"].decode() for record in counted.of(USAGE_DLQ.name))
    verdict.compare("dead letters", dead, traffic.sent.reasons)
    assert verdict.problems == []
    assert len(findings) == len(expected.turns) > 100
    assert any(turn.number % 2 == 0 for turn in expected.turns), "corrections resolve some"
    assert expected.n_records == traffic.sent.records
