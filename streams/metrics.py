"""The list of Prometheus metrics: name, unit, labels, help. What is counted is the core's to say, in outcomes.

Full names are `spendbrake_<name>` with `_total` for counters and `_seconds` for times.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import prometheus_client as prometheus
from prometheus_client import CollectorRegistry

NAMESPACE = "spendbrake"
LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Counters of an `Outcome` have one label at most."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""


METRICS: tuple[Metric, ...] = (
    # --- burn and parents: what became of each record
    Metric("events", "counter", "Usage events counted."),
    Metric("duplicates", "counter", "Usage events seen before, and not counted again."),
    Metric("forwards", "counter", "Usage events sent on to the partition that owns their team."),
    Metric("late", "counter", "Usage events counted behind the watermark."),
    Metric("unpriced", "counter", "Usage events of a model that the price book does not know."),
    Metric("dead_letters", "counter", "Records sent to a dead-letter topic.", ("reason",)),
    Metric("findings", "counter", "Findings issued.", ("detector",)),
    Metric("actions", "counter", "Actions published.", ("effect",)),
    Metric("feedback", "gauge", "Incidents that people have judged.", ("detector", "opinion", "partition")),
    # --- the log
    Metric("lag", "gauge", "Records not yet acknowledged.", ("topic", "partition"), "records"),
    Metric("clock", "gauge", "The engine's now, epoch seconds.", ("topic", "partition"), "seconds"),
    Metric("dedupe_horizon", "gauge", "How far back duplicates are recognised.", ("partition",), "seconds"),
    Metric("step", "histogram", "Time of one engine step.", (), "seconds"),
    Metric("snapshot", "histogram", "Time until a written row was acknowledged.", (), "seconds"),
    Metric("recovery", "histogram", "Time from assignment of a partition to its first record.", (), "seconds"),
    Metric("gaps", "counter", "Gaps in offsets, refetched and found real.", ("topic",)),
    Metric("holes", "counter", "Chunks that did not join and were read again.", ("topic",)),
    # --- delivery
    Metric("results", "counter", "Results of actions.", ("effect", "outcome")),
    Metric("undelivered", "counter", "Notifications that failed, or may have.", ("effect", "destination")),
    Metric("retries", "counter", "Tries of an action after the first.", ("effect",)),
    Metric("gathered", "counter", "Notifications sent on to where their group is told.", ("effect",)),
    Metric("effect", "histogram", "Time of one call to a receiver.", ("effect",), "seconds"),
    Metric("decision", "histogram", "From the record's timestamp to the decision in Redis.", (), "seconds"),
    Metric("republished", "counter", "Standing decisions written again."),
    # --- hard caps
    Metric("overshoot_bound", "gauge", "The most any node can spend past its hard cap.", ("topic", "partition"), "usd"),
    Metric("lease_held", "gauge", "Held by leases, settled ones included.", (), "usd"),
    Metric("lease_open", "gauge", "Held by leases of calls under way.", (), "usd"),
    Metric("lease_drift", "gauge", "By how much sums of leases were wrong at the last recount.", (), "usd"),
    Metric("leases", "counter", "What has become of leases.", ("outcome",)),
    # --- API and gateways
    Metric("ingested", "counter", "Events taken over HTTP.", ("outcome",)),
    Metric("checks", "counter", "Decisions handed to gateways over HTTP.", ("verdict",)),
    Metric("lease_requests", "counter", "Leases asked for over HTTP.", ("outcome",)),
    Metric("refused", "counter", "Requests to the API refused for want of a token or role.", ("reason",)),
    Metric("check", "histogram", "Time of one check over HTTP.", (), "seconds"),
)


class Metrics:
    """The metrics of one process, in one registry.

    A name that is not in `METRICS` raises KeyError, a wrong number of labels ValueError: both are mistakes in code.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._counters: dict[str, prometheus.Counter] = {}
        self._gauges: dict[str, prometheus.Gauge] = {}
        self._histograms: dict[str, prometheus.Histogram] = {}
        for metric in METRICS:
            self._make(metric)

    def _make(self, metric: Metric) -> None:
        name = f"{NAMESPACE}_{metric.name}" + (f"_{metric.unit}" if metric.unit else "")
        if metric.kind == "counter":
            self._counters[metric.name] = prometheus.Counter(name, metric.help, metric.labels, registry=self.registry)
        elif metric.kind == "gauge":
            self._gauges[metric.name] = prometheus.Gauge(name, metric.help, metric.labels, registry=self.registry)
        else:
            self._histograms[metric.name] = prometheus.Histogram(
                name, metric.help, metric.labels, registry=self.registry, buckets=LATENCY_S
            )

    def count(self, name: str, *labels: str, n: int = 1) -> None:
        """Add `n` to a counter."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(n)

    def add(self, counters: Counter[tuple[str, str]]) -> None:
        """Add the counters of an `Outcome`; an empty label is none."""
        for (name, label), n in counters.items():
            self.count(name, *((label,) if label else ()), n=n)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(*labels) if labels else histogram).observe(seconds)

    def exposition(self) -> bytes:
        """Return the text that /metrics answers with."""
        return prometheus.generate_latest(self.registry)
