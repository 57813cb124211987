"""A log to test the engine with: events in, batches of one partition out, cut wherever the test wants."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spendbrake.schemas.command import InternalKind
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.step import Engine, EngineSettings

SECRET = b"secret of the tests"
START = 1_767_571_200.0  # 2026-01-05T00:00:00Z, a Monday


@dataclass
class Record:
    value: bytes | None
    at: float
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Cut:
    """A batch of consecutive records."""

    records: Sequence[Record]
    first: int
    partition: int = 0
    topic: str = "usage.v1"

    @property
    def offsets(self) -> Sequence[int]:
        return range(self.first, self.first + len(self.records))

    @property
    def values(self) -> list[bytes | None]:
        return [r.value for r in self.records]

    @property
    def keys(self) -> list[bytes | None]:
        return [r.key for r in self.records]

    @property
    def timestamps_ms(self) -> list[int]:
        return [round(r.at * 1000) for r in self.records]

    @property
    def headers(self) -> list[tuple[tuple[str, bytes], ...]]:
        return [r.headers for r in self.records]


@dataclass
class Log:
    """All records of one partition, in order."""

    records: list[Record] = field(default_factory=list)

    def add(self, event: UsageEvent, now: float | None = None) -> None:
        self.records.append(Record(encode(event), event.time if now is None else now))

    def raw(self, value: bytes | None, now: float, **kw: Any) -> None:
        self.records.append(Record(value, now, **kw))

    def internal(self, kind: InternalKind, now: float, key: bytes = b"", value: bytes = b"") -> None:
        self.records.append(Record(value, now, key, seal(kind, "usage.v1", key, value, SECRET)))

    def tick(self, now: float) -> None:
        self.internal("tick", now)

    def cuts(self, at: Iterable[int] = ()) -> Iterator[Cut]:
        bounds = [0, *sorted(at), len(self.records)]
        for a, b in zip(bounds, bounds[1:], strict=False):
            if b > a:
                yield Cut(self.records[a:b], a)

    def every(self, n: int) -> Iterator[Cut]:
        return self.cuts(range(n, len(self.records), n))


def event(i: int, at: float, **kw: Any) -> UsageEvent:
    """An event of $0.01 on team `a` unless said otherwise."""
    base: dict[str, Any] = dict(
        request_id=f"r{i}",
        time=at,
        api_key_id="key-1",
        provider="openai",
        model="gpt-4o",
        team="a",
        input_tokens=1000,
        output_tokens=100,
        cost=10_000_000,
    )
    return UsageEvent(**(base | kw))


def policy(**kw: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "nodes": [{"id": "acme", "level": "organization"}],
        "defaults": {"team": {"monthly_budget_usd": 100}},
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
            }
        ],
        "detection": {"enabled": False},
    }
    return base | kw


def version(document: dict[str, Any], number: int = 1, valid_from: float = 0.0) -> PolicyVersion:
    PolicyFile.model_validate(document)
    return PolicyVersion(
        version=number, valid_from=valid_from, published_at=valid_from - 60, digest="", document=document
    )


def engine(document: dict[str, Any] | None = None, *, partitions: int = 1, blocks: int = 4) -> Engine:
    book = RuleBook(partitions, [version(document or policy())])
    return Engine(book, EngineSettings(partitions=partitions, secrets=(SECRET,), dedupe_blocks=blocks))


def play(cuts: Iterable[Cut], of: Engine | None = None) -> tuple[PartitionState, list[Outcome]]:
    of = of or engine()
    state = of.new_state(0, 1)
    return state, [of.step(state, cut) for cut in cuts]
