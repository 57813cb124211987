"""The engine alone: `Engine.step` over chunks in memory, CPU microseconds an event; no broker, no sends, no rows.

`python tests/bench/engine.py [--quick]`, or a row of one's own: `[--teams N] [--no-detection] [--sparse] [--profile]`.
A step's cost has a part an event and a part a second of the log's clock (teams whose buckets close, rollups), so the
speed of the log matters: 50,000 events/s unless a row says otherwise. All teams are on one partition here.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from events import Population, Wire, bench_policy
from machine import Report

from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.offline.replay import replay
from spendbrake.streams.simulate.company import Company
from spendbrake.streams.transport.chunk import Chunk

START = 1_767_571_230.0
WARM_CHUNK = 1_000
WARM_S = 60.0
"""Log time of the last of the warm-up: buckets close as they will from then on."""
DAY_S = 86_400.0


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        rate: Events a second of the log's clock.
        days_known: Age of all teams. What is younger than a day is shown to detectors at every doubling of its spend.
    """

    name: str
    teams: int = 5_000
    wire: Wire = "avro"
    detection: bool = True
    chunk: int = 1_000
    rate: float = 50_000.0
    days_known: int = 2


CASES = (
    Case("5,000 teams"),
    Case("detection off", detection=False),
    Case("JSON", wire="json"),
    Case("chunks of 4,000", chunk=4_000),
    Case("2,000 events/s", rate=2_000.0),
    Case("2,000 events/s, chunks of 10", rate=2_000.0, chunk=10),
    Case("all teams new", days_known=0),
    Case("sparse, every 2 s", teams=32, rate=0.5),
    Case("10 teams", teams=10),
    Case("100 teams", teams=100),
    Case("1,000 teams", teams=1_000),
    Case("10,000 teams", teams=10_000),
)


def version(document: dict[str, Any]) -> PolicyVersion:
    return PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=document)


class Log:
    """A log in memory, made chunk by chunk."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._at, self._first = START, 0

    def pass_over(self, seconds: float) -> None:
        """Let the clock go on in silence."""
        self._at += seconds

    def chunks(self, n: int, over_s: float, size: int) -> list[Chunk]:
        """Return the next `n` chunks of `size` events, `over_s` seconds of the log's clock together."""
        return [self._next(over_s / n, size) for _ in range(n)]

    def _next(self, over_s: float, size: int) -> Chunk:
        first, at = self._first, self._at
        pairs = list(self._population.events(size, at, over_s))
        self._first, self._at = first + size, at + over_s
        return Chunk(
            topic="usage.v1", partition=0, generation=1, joins=first, first=first, last=first + size - 1,
            offsets=range(first, first + size),
            values=[value for _, value in pairs],
            keys=[key for key, _ in pairs],
            timestamps_ms=[int((at + over_s * i / size) * 1_000) for i in range(size)],
            headers=[()] * size,
        )  # fmt: skip


def measure(case: Case, events: int, repeats: int, profile: bool = False) -> dict[str, Any]:
    """Return CPU microseconds an event, the median and the least of some runs over one state."""
    policy = version(bench_policy(case.detection))
    engine = Engine(RuleBook(1, [policy]), EngineSettings(partitions=1, secrets=(b"bench",), dedupe_blocks=64))
    state = engine.new_state(0, 1)
    population = Population(case.teams, case.wire)
    log = Log(population)
    warm = max(20, len(population) // WARM_CHUNK)
    for days in (case.days_known, 0):
        for chunk in log.chunks(warm, WARM_S, WARM_CHUNK):
            engine.step(state, chunk)
        log.pass_over(days * DAY_S)
    n = max(1, events // case.chunk)
    taken: list[float] = []
    slowest = 0.0
    counted = records = 0
    profiler = cProfile.Profile()
    for _ in range(repeats):
        chunks = log.chunks(n, n * case.chunk / case.rate, case.chunk)
        if profile:
            profiler.enable()
        began = time.process_time()
        for chunk in chunks:
            step_began = time.perf_counter()
            outcome = engine.step(state, chunk)
            slowest = max(slowest, time.perf_counter() - step_began)
            records += len(outcome.records)
            counted += outcome.counters["events", ""]
        profiler.disable()
        taken.append((time.process_time() - began) / (n * case.chunk) * 1e6)
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    assert counted == repeats * n * case.chunk, f"{counted} events counted"
    return {
        "cpu_us_per_event": median(taken),
        "least": min(taken),
        "events_per_cpu_s": 1e6 / median(taken),
        "slowest_step_ms": slowest * 1e3,
        "records_out_per_1000": records / counted * 1_000,
        "events": counted,
    }


def lines_of_company(calls: int) -> Iterator[bytes]:
    for event in Company(seed=1, calls_per_day=calls, days=1).events():
        yield encode_usage_json(event)


def measure_replay(calls: int) -> dict[str, Any]:
    """Return how fast `replay` takes a day of a small company: one line in seconds, ticks in between."""
    lines = list(islice(lines_of_company(calls), calls))
    began = time.process_time()
    findings = sum(len(told.findings) for told in replay(iter(lines), version(bench_policy())))
    cpu = time.process_time() - began
    return {
        "cpu_us_per_event": cpu / len(lines) * 1e6,
        "events_per_cpu_s": len(lines) / cpu,
        "events": len(lines),
        "findings": findings,
    }


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the table's rows, or the one that was asked for."""
    if options.teams or options.no_detection or options.sparse:
        teams, rate = (32, 0.5) if options.sparse else (options.teams or 5_000, 50_000.0)
        return [Case("as asked", teams=teams, rate=rate, detection=not options.no_detection)]
    if options.profile:
        return list(CASES[:1])
    return [case for case in CASES if options.only is None or options.only in case.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events of one run")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything: whether it works at all")
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--teams", type=int, help="one row, of so many teams")
    parser.add_argument("--no-detection", action="store_true", help="one row, without detectors")
    parser.add_argument("--sparse", action="store_true", help="one row: 32 teams, an event every 2 s")
    parser.add_argument("--profile", action="store_true", help="one row, under a profiler")
    options = parser.parse_args()
    events, repeats = (options.events // 20, 1) if options.quick else (options.events, options.repeats)
    report = Report("engine", "engine.step alone", {"events_a_run": events, "runs": repeats})
    chosen = cases(options)
    for case in chosen:
        report.add(case.name, **measure(case, events, repeats, options.profile))
    if len(chosen) == len(CASES):
        report.add("replay of a file, a day", **measure_replay(2_000 if options.quick else 20_000))
    report.end()


if __name__ == "__main__":
    main()
