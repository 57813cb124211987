"""A burn worker in a process of its own, watched from within: CPU, wall clock and events, first chunk to last.

`python tests/bench/runner.py burn|up|fill [--profile]`, settings by environment; pipeline.py calls it. It runs the
services that `spendbrake worker burn` and `spendbrake up` run, and looks on through `observers`: no other code path.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from events import Population, bench_policy

from spendbrake.detectors.panel import COMPILED
from spendbrake.schemas.topics import USAGE
from spendbrake.streams import logs
from spendbrake.streams.cli.base import broker_of, place_of, spare_the_loop
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.admin import Admin
from spendbrake.streams.workers.deployment import create
from spendbrake.streams.workers.service import Service, burn_service

LOOK_S = 0.02
HZ = os.sysconf("SC_CLK_TCK")
OUTSTANDING = 5_000
PARTS = (
    ("decode", ("/engine/intake/", "/schemas/wire/", "pyruhvro", "pyarrow", "orjson", "msgspec")),
    ("rollups", ("/engine/rollups.py",)),
    ("detectors", ("/detectors/",)),
    ("judge and policies", ("/engine/judge/", "/actions/policies/", "/streams/budgets/")),
    ("rows", ("/engine/state/rows.py", "/engine/state/codec.py", "/partitions/snapshot.py", "/transport/store.py")),
    ("engine, the rest", ("/streams/engine/", "/numpy/")),
    ("outputs", ("/partitions/outputs.py", "/transport/producer.py", "/aiokafka/producer/", "/aiokafka/record/")),
    ("fetch", ("/streams/transport/", "/aiokafka/", "sqlite")),
    ("faust", ("/faust/", "/mode/")),
    ("event loop", ("/asyncio/", "selectors.py", "threading.py", "concurrent/")),
    ("worker", ("/streams/workers/", "/streams/metrics.py", "prometheus")),
    ("bench", ("/tests/bench/",)),
)
"""A part is the first whose path holds one of these. Built-in functions count for those who call them."""


@dataclass
class Mark:
    """One moment.

    Attributes:
        cpu: CPU time of the process so far, seconds: what /proc/PID/stat shows, finer.
        threads: Of each thread, seconds, as /proc/PID/task/TID/stat shows it.
    """

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)
    threads: dict[str, float] = field(default_factory=lambda: threads())


def started() -> float:
    """Return when this process was started, by `time.perf_counter`."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.perf_counter() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / HZ)


STARTED = started()


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def threads() -> dict[str, float]:
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    used: dict[str, float] = {}
    for path in Path("/proc/self/task").iterdir():
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        name = names.get(int(path.name), "others")
        used[name] = used.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / HZ
    return used


class Watch:
    """Watches a burn service until it has applied and committed all that the log held when it began.

    Attributes:
        marks: `first` chunk applied, `recovered` when each partition has applied one, `warm` after a third of what
            was to be read of each, the last chunk `applied`, all `stored`: acknowledged and committed.
        away_s: Longest that the loop had no time for others, once warm.
    """

    def __init__(
        self, service: Service, spans: dict[int, tuple[int, int]], profiled: bool, leaves: bool = False
    ) -> None:
        self.leaves = leaves
        self.service, self._left = service, {number: end for number, (begin, end) in spans.items() if end > begin}
        self._ends, self._unheard = dict(self._left), set(self._left)
        self._cold = {number: begin + (end - begin) // 3 for number, (begin, end) in spans.items() if end > begin}
        self.marks: dict[str, Mark] = {}
        self.counted: dict[str, int] = {"events": 0, "duplicates": 0, "steps": 0, "records_out": 0}
        self.first_events = self.warm_events = 0
        self.slowest_step_s = self.away_s = self.recovered_rss_mb = 0.0
        self._profiles = [cProfile.Profile(time.thread_time) for _ in range(2)] if profiled else []
        service.worker.observers.append(self.observe)
        service.worker.engine.walk = self._timed(service.worker.engine.walk)

    def _timed(self, walk: Callable[..., Any]) -> Callable[..., Any]:
        """Note the longest that a step goes on without giving way."""

        def timed(*arguments: Any) -> Any:
            going = walk(*arguments)
            while True:
                began = time.perf_counter()
                try:
                    next(going)
                except StopIteration as end:
                    return end.value
                finally:
                    self.slowest_step_s = max(self.slowest_step_s, time.perf_counter() - began)
                yield

        return timed

    def observe(self, owned: Any, outcome: Any) -> None:
        for name in ("events", "duplicates"):
            self.counted[name] += outcome.counters[name, ""]
        self.counted["steps"] += 1
        self.counted["records_out"] += len(outcome.records)
        if not self.marks:
            self.first_events = self.seen
            self.marks["first"] = Mark()
        self._unheard.discard(owned.number)
        if "recovered" not in self.marks and not self._unheard:
            self.recovered_rss_mb = rss_mb()
            self.marks["recovered"] = Mark()
        if owned.last + 1 >= self._cold.get(owned.number, 1 << 62):
            del self._cold[owned.number]
        if "warm" not in self.marks and "recovered" in self.marks and not self._cold:
            self.warm_events = self.seen
            self.slowest_step_s = 0.0
            self._profile(on=True)
            self.marks["warm"] = Mark()
        if owned.last + 1 >= self._left.get(owned.number, 1 << 62):
            del self._left[owned.number]
            if not self._left:
                self.marks["applied"] = Mark()

    @property
    def seen(self) -> int:
        """Events that were applied, duplicates among them."""
        return self.counted["events"] + self.counted["duplicates"]

    async def until_stored(self) -> None:
        """Return once all is committed, or applied, if it is the end of the service that is to store it."""
        while "stored" not in self.marks and not (self.leaves and "applied" in self.marks):
            began = time.perf_counter()
            await asyncio.sleep(LOOK_S)
            if "warm" in self.marks and "applied" not in self.marks:
                self.away_s = max(self.away_s, time.perf_counter() - began - LOOK_S)
            if "applied" in self.marks and self._committed():
                self.marks["stored"] = Mark()
        self._profile(on=False)
        self.service.stop()

    def _committed(self) -> bool:
        progress = {tp.partition: known.committed or 0 for tp, known in self.service.app.consumer.progress().items()}
        return all(progress.get(number, 0) >= end for number, end in self._ends.items())

    def _profile(self, *, on: bool) -> None:
        """Profile this thread, and the one that reads from Kafka, if there is one."""
        if not self._profiles:
            return
        mine, other = self._profiles
        thread = getattr(self.service.app.consumer, "_thread", None)
        if thread is not None:
            thread.thread_loop.call_soon_threadsafe(other.enable if on else other.disable)
        if on:
            mine.enable()
        else:
            mine.disable()
            time.sleep(0.1)

    def told(self, profile: Path | None) -> dict[str, Any]:
        told: dict[str, Any] = {name: asdict(mark) for name, mark in self.marks.items()}
        told |= self.counted | {"first_events": self.first_events, "warm_events": self.warm_events}
        told |= {"slowest_step_ms": self.slowest_step_s * 1e3, "loop_away_ms": self.away_s * 1e3}
        told |= {"recovered_rss_mb": self.recovered_rss_mb}
        told |= {"recovery_s": self.marks["recovered"].wall - STARTED}
        told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return told if profile is None else told | {"shares": self.dump(profile)}

    def dump(self, path: Path) -> dict[str, float]:
        """Write the profiles for pstats, `.main` and `.fetch`; return shares of the CPU time."""
        for profile, part in zip(self._profiles, ("main", "fetch"), strict=True):
            profile.create_stats()
            if profile.stats:  # type: ignore[attr-defined]
                profile.dump_stats(path.with_suffix(f".{part}.pstats"))
        return shares(self._profiles)


async def burn(config: Settings, profile: Path | None, leaves: bool = False) -> dict[str, Any]:
    """Run one burn worker on a Kafka backlog; if it `leaves`, it stores all when it stops, at once."""
    async with broker_of(config) as broker:
        place = place_of(config)
        spans = await broker.ends(place.topic(USAGE.name))
        committed = Admin(config.bootstrap_servers).committed(place.group("burn"), place.topic(USAGE.name))
        spans = {number: (max(begin, committed.get(number, 0)), end) for number, (begin, end) in spans.items()}
        service = await burn_service(broker, place, config, Metrics(), time.time)
        watch = Watch(service, spans, profile is not None, leaves)
        spare_the_loop()
        await asyncio.gather(service.run(), watch.until_stored())
        watch.marks.setdefault("stored", Mark())
        return watch.told(profile)


async def up(config: Settings, profile: Path | None) -> dict[str, Any]:
    """Run everything in this process, on the backlog that `fill` has left in the embedded log."""
    async with stack(config, bench_policy()) as running:
        spans = await running.broker.ends(running.place.topic(USAGE.name))
        watch = Watch(running.service("burn"), spans, profile is not None)
        spare_the_loop()
        await watch.until_stored()
        return watch.told(profile)


async def fill(config: Settings, population: Population, events: int) -> dict[str, Any]:
    """Put a backlog into the embedded log."""
    async with broker_of(config) as broker:
        place = place_of(config)
        await create(broker, place, config.data_dir)
        sent: list[Any] = []
        for first in range(0, events, OUTSTANDING):
            for key, value in population.events(min(OUTSTANDING, events - first), time.time()):
                sent.append(await broker.send(place.topic(USAGE.name), key=key, value=value))
            await asyncio.gather(*sent)
            sent.clear()
    return {"sent": events, "doubled": population.doubled}


def part_of(path: str) -> str:
    return next((name for name, marks in PARTS if any(mark in path for mark in marks)), "others")


def shares(profiles: Sequence[cProfile.Profile]) -> dict[str, float]:
    """Return seconds by part, the largest first."""
    used: Counter[str] = Counter()
    for profile in profiles:
        profile.create_stats()
        if not profile.stats:  # type: ignore[attr-defined]
            continue
        for (path, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if path != "~" or not callers:
                used[part_of(path if path != "~" else name)] += own
                continue
            for (caller, _, caller_name), (_, _, caller_own, _) in callers.items():
                used[part_of(caller if caller != "~" else caller_name)] += caller_own
    return {name: round(seconds, 4) for name, seconds in used.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("burn", "up", "fill"))
    parser.add_argument("--out", type=Path, required=True, help="figures, as JSON")
    parser.add_argument("--profile", type=Path, help="write profiles beside this path, and add the shares")
    parser.add_argument("--leave", action="store_true", help="burn: stop once all is applied; then it is stored")
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--teams", type=int, default=0)
    parser.add_argument("--duplicates", type=float, default=0.0)
    parser.add_argument("--wire", default="avro")
    options = parser.parse_args()
    config = Settings.load()
    logs.configure("WARNING", "console")
    if options.mode == "fill":
        population = Population(options.teams, options.wire, duplicates=options.duplicates)
        told = asyncio.run(fill(config, population, options.events))
    elif options.mode == "burn":
        told = asyncio.run(burn(config, options.profile, options.leave))
    else:
        told = asyncio.run(up(config, options.profile))
    options.out.write_text(json.dumps(told | {"compiled": COMPILED}))


if __name__ == "__main__":
    main()
