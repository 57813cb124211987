"""What workers tell of themselves: holes sought back, lag, health. One that dies keeps its last word."""

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from kafka.deployment import Process

SERVED = re.compile(r"health and metrics are served.*?(http://127\.0\.0\.1:\d+)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PATIENCE_S = 1.0
STILL_S = 20.0
"""A worker that has not read, or belongs to no settled group, for so long stands still: no fault lasts that long."""
TOLD = ("spendbrake_holes_total", "spendbrake_gaps_total")


@dataclass
class Gauges:
    """The latest of each worker.

    Attributes:
        most_lag: Highest lag of a partition that any worker has reported.
        most_overshoot: Highest bound on overshoot, USD, likewise.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    most_lag: int = 0
    most_overshoot: float = 0.0
    _unsettled: dict[str, float] = field(default_factory=dict)
    _urls: dict[str, str] = field(default_factory=dict)

    def look(self, workers: Iterable[Process]) -> None:
        """Ask all workers that serve anything; silence is no news."""
        for worker in workers:
            counts: Counter[str] = Counter()
            for sample in self._samples(worker):
                if sample.name in TOLD:
                    counts[sample.name] += int(sample.value)
                elif sample.name == "spendbrake_lag_records":
                    self.most_lag = max(self.most_lag, int(sample.value))
                elif sample.name == "spendbrake_overshoot_bound_usd":
                    self.most_overshoot = max(self.most_overshoot, sample.value)
            if counts:
                self.counts[worker.name] = counts

    def total(self, name: str) -> int:
        return sum(counts[name] for counts in self.counts.values())

    def lag(self, workers: Iterable[Process]) -> int:
        """Return the records that workers now say they have not acknowledged, of all partitions."""
        samples = [sample for worker in workers for sample in self._samples(worker)]
        return sum(int(sample.value) for sample in samples if sample.name == "spendbrake_lag_records")

    def ill(self, workers: Iterable[Process]) -> dict[str, list[str]]:
        """Return the workers that do not call themselves well, with their reasons."""
        found = {}
        for worker in workers:
            status, text = self._get(worker, "/healthz")
            if status != 200:
                found[worker.name] = json.loads(text)["reasons"] if text else ["no answer"]
        return found

    def still(self, workers: Iterable[Process], now: float) -> Iterator[tuple[Process, str]]:
        """Yield those of the workers (awake ones) that stand still, and how they say so; new ones have their time."""
        known = [worker for worker in workers if worker.name in self._urls]
        for name in self._unsettled.keys() - {worker.name for worker in known}:
            del self._unsettled[name]
        for worker in known:
            text = self._get(worker, "/healthz")[1]
            services = json.loads(text)["services"] if text else []
            if services and all(service["settled"] for service in services):
                self._unsettled.pop(worker.name, None)
            elif now - self._unsettled.setdefault(worker.name, now) >= STILL_S:
                yield worker, f"not settled, or no answer, for {now - self._unsettled[worker.name]:.0f} s"
            for each in [each for service in services for each in service["partitions"]]:
                if each["still_s"] >= STILL_S:
                    place = f"{each['topic']}/{each['partition']}"
                    yield worker, f"{place} at {each['expected']} of {each['end']} for {each['still_s']:.0f} s"

    def _samples(self, worker: Process) -> list[Any]:
        text = self._get(worker, "/metrics")[1]
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def _get(self, worker: Process, path: str) -> tuple[int, str]:
        url = self._urls.get(worker.name)
        if url is None:
            served = SERVED.search(COLOURS.sub("", worker.text()))
            if served is None:
                return 0, ""
            url = self._urls[worker.name] = served[1]
        try:
            with urllib.request.urlopen(url + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
