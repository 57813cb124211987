"""The job that every peer is given: decode the events of a topic, sum tokens by team and window, notice one threshold.

It knows nothing of the product but its published Avro schema, and runs in the peers' own environment.
"""

import argparse
import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import fastavro
import orjson

SCHEMA = fastavro.parse_schema(json.loads((Path(__file__).parents[3] / "schemas/avro/usage.avsc").read_text()))
FRAME = 5
"""Bytes before the Avro body: a zero, and the id of the schema."""
WINDOW_S, HOP_S = 60, 10
THRESHOLD = 100_000_000
"""Tokens of a team in a window; nobody comes near, as hardly any team does in production."""


def read_avro(value: bytes) -> dict[str, Any]:
    """Return an event; its time is left as epoch microseconds' datetime, as fastavro has it."""
    event: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(value[FRAME:]), SCHEMA)
    return event


def read_json(value: bytes) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(value)
    return event


READERS = {"avro": read_avro, "json": read_json}


def options() -> argparse.Namespace:
    """Return what a peer is told: where to read, how much, and how much of that is for warming up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--wire", choices=("avro", "json"), default="avro")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for what a peer keeps on disk")
    return parser.parse_args()


class Meter:
    """Counts events; between the last of the warm-up and the last of all it takes the process's CPU time.

    Attributes:
        over: Events that found their team's window past the threshold.
    """

    def __init__(self, events: int, warm: int) -> None:
        self._events, self._warm = events, warm
        self._cpu = self._wall = 0.0
        self.seen = self.measured = self.over = 0

    def count(self, n: int = 1) -> None:
        """Note events; with the last one, tell the figures and end the process."""
        self.seen += n
        if not self._wall:
            if self.seen >= self._warm:
                self._cpu, self._wall = time.process_time(), time.perf_counter()
                self.measured = -self.seen
        elif self.seen >= self._events:
            self._end(time.process_time() - self._cpu, time.perf_counter() - self._wall)

    def _end(self, cpu: float, wall: float) -> None:
        n = self.measured + self.seen
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told = {"cpu_us_per_event": cpu / n * 1e6, "events_per_s": n / wall, "peak_rss_mb": rss, "events": n}
        print(json.dumps(told), file=sys.__stdout__, flush=True)  # Faust takes sys.stdout for its log
        os._exit(0)  # frameworks take seconds to stop, and some of them commit meanwhile
