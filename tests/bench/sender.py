"""A steady stream of events, and now and then one that crosses a cap: a process of its own, on the same machine.

`python tests/bench/sender.py kafka BOOTSTRAP TOPIC | http URL`; latency.py calls it. It prints a line for each
crossing, `team acknowledged_at`, the moment being the producer's: Kafka's delivery report, or the answer 202. With
`--probe SECONDS` it sends as fast as it is answered, and prints the events a second.
"""

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from random import Random
from typing import Protocol

import httpx
from confluent_kafka import KafkaError, Message, Producer
from events import Population

from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json

Pair = tuple[bytes, bytes]
MODEL = "gpt-4o"
CAP_USD = 0.01
FIRST_NANO, CROSSING_NANO = 1_000_000, 20_000_000
"""$0.001 makes a team and its key known; $0.02 more is past the cap."""
EVERY_S = 0.02
SENT_S = 60.0
AT_ONCE = 500
"""Events of one request."""


class Port(Protocol):
    """Brings events to the usage topic."""

    def load(self, pairs: Sequence[Pair]) -> None:
        """Send events; need not wait."""

    def one(self, event: UsageEvent) -> float:
        """Send one event; return when it was acknowledged, epoch seconds."""

    def close(self) -> None:
        """Wait for what was sent."""


class Kafka:
    """Through confluent-kafka, as the product's producers do."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,
            }
        )
        self._open = True
        threading.Thread(target=self._poll, daemon=True).start()

    def load(self, pairs: Sequence[Pair]) -> None:
        for key, value in pairs:
            self._producer.produce(self._topic, key=key, value=value)

    def one(self, event: UsageEvent) -> float:
        taken = threading.Event()
        told: list[tuple[float, KafkaError | None]] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            told.append((time.time(), error))
            taken.set()

        key = (event.team or "").encode()
        self._producer.produce(self._topic, key=key, value=encode(event), on_delivery=delivered)
        if not taken.wait(SENT_S) or told[0][1] is not None:
            raise RuntimeError(f"{event.team}: not acknowledged: {told}")
        return told[0][0]

    def close(self) -> None:
        self._producer.flush(SENT_S)
        self._open = False

    def _poll(self) -> None:
        while self._open:
            self._producer.poll(0.05)


class Http:
    """Through POST /v1/usage."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=SENT_S)
        self._other = httpx.Client(base_url=url, timeout=SENT_S)

    def load(self, pairs: Sequence[Pair]) -> None:
        for first in range(0, len(pairs), AT_ONCE):
            body = b"\n".join(value for _, value in pairs[first : first + AT_ONCE])
            self._post(self._client, body, "application/x-ndjson")

    def one(self, event: UsageEvent) -> float:
        self._post(self._other, encode_usage_json(event), "application/json")
        return time.time()

    def close(self) -> None:
        self._client.close()
        self._other.close()

    def _post(self, client: httpx.Client, body: bytes, kind: str) -> None:
        answer = client.post("/v1/usage", content=body, headers={"content-type": kind})
        while answer.status_code == 503:
            time.sleep(float(answer.headers["retry-after"]))
            answer = client.post("/v1/usage", content=body, headers={"content-type": kind})
        if answer.status_code != 202:
            raise RuntimeError(f"/v1/usage: {answer.status_code} {answer.text[:500]}")


def crossing(team: str, number: int, cost: NanoUsd) -> UsageEvent:
    return UsageEvent(
        request_id=f"{team}-{number}", time=time.time(), api_key_id=f"key-{team}", provider="openai", model=MODEL,
        team=team, environment="prod", input_tokens=1_000, output_tokens=100, cost=cost,
    )  # fmt: skip


class Load(threading.Thread):
    """Sends `rate` events a second until it is ended."""

    def __init__(self, port: Port, population: Population, rate: float) -> None:
        super().__init__(daemon=True)
        self._port, self._population, self._rate = port, population, rate
        self.ended = threading.Event()
        self.sent = 0
        self.over_s = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        began = time.perf_counter()
        try:
            while not self.ended.wait(EVERY_S):
                self.over_s = time.perf_counter() - began
                due = int(self.over_s * self._rate) - self.sent
                self._port.load(list(self._population.events(due, time.time())))
                self.sent += due
        except Exception as error:
            self.error = error


def probe(port: Port, population: Population, over_s: float) -> float:
    """Return how many events a second are taken when each request waits for the answer to the one before."""
    began, sent = time.perf_counter(), 0
    while time.perf_counter() < began + over_s:
        port.load(list(population.events(AT_ONCE, time.time())))
        sent += AT_ONCE
    return sent / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("kafka", "http"))
    parser.add_argument("place", nargs="+")
    parser.add_argument("--rate", type=float, default=0.0, help="events a second")
    parser.add_argument("--teams", type=int, required=True)
    parser.add_argument("--crossings", type=int, required=True)
    parser.add_argument("--every", type=float, required=True, help="mean seconds between crossings")
    parser.add_argument("--probe", type=float, help="seconds")
    options = parser.parse_args()
    port: Port = Kafka(*options.place) if options.kind == "kafka" else Http(*options.place)
    if options.probe:
        print(probe(port, Population(options.teams, "json", seed=3, first_id=10**12), options.probe), flush=True)
        return
    teams = [f"cross-{i}" for i in range(options.crossings)]
    for team in teams:
        port.one(crossing(team, 0, FIRST_NANO))
    load = Load(port, Population(options.teams, "avro" if options.kind == "kafka" else "json"), options.rate)
    load.start()
    print("ready", flush=True)
    sys.stdin.readline()
    before, before_s, draw = load.sent, load.over_s, Random(1)
    for team in teams:
        time.sleep(options.every * draw.uniform(0.5, 1.5))
        print(team, port.one(crossing(team, 1, CROSSING_NANO)), flush=True)
        if load.error is not None:
            raise load.error
    rate = (load.sent - before) / (load.over_s - before_s)
    print(f"rate {rate} {load.sent - before}", flush=True)
    sys.stdin.readline()
    load.ended.set()
    load.join()
    port.close()


if __name__ == "__main__":
    main()
