"""A peer of the pipeline: confluent-kafka, fastavro (or orjson) and numpy sums of tokens by team; nothing else.

`python tests/bench/peers/bare.py BOOTSTRAP TOPIC WIRE` reads the topic once and prints its figures as JSON. No
group, no commits, no dedupe, no prices, no windows, no state kept: what is left of a pipeline when all of that is free.
"""

import io
import json
import resource
import sys
import time
from typing import Any

import fastavro
import numpy as np
import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import reader_schema

BATCH = 1_000


def ends_of(consumer: Consumer, topic: str) -> dict[int, int]:
    numbers = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    found = {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)[1] for number in numbers}
    return {number: end for number, end in found.items() if end}


def main() -> None:
    bootstrap, topic, wire = sys.argv[1:]
    schema = reader_schema(UsageEvent)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare", "enable.auto.commit": False})
    ends = ends_of(consumer, topic)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
    teams: dict[str, int] = {}
    totals = np.zeros(1 << 16, np.int64)
    last = dict.fromkeys(ends, -1)
    n, began, began_wall = 0, 0.0, 0.0
    while any(last[number] + 1 < end for number, end in ends.items()):
        messages = consumer.consume(BATCH, 1.0)
        rows: list[Any] = []
        for message in messages:
            last[message.partition()] = message.offset()
            value = message.value()
            if not value:
                continue  # a tick
            if wire == "avro":
                rows.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), schema))
            else:
                rows.append(orjson.loads(value))
        team = np.array([teams.setdefault(row["team"], len(teams)) for row in rows], np.int64)
        tokens = np.array([row["input_tokens"] + row["output_tokens"] for row in rows], np.int64)
        np.add.at(totals, team, tokens)
        if began_wall:
            n += len(rows)
        elif rows:
            began, began_wall = time.process_time(), time.perf_counter()
    cpu, wall = time.process_time() - began, time.perf_counter() - began_wall
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"events": n, "teams": len(teams), "cpu_us_per_event": cpu / n * 1e6, "events_per_s": n / wall}
    print(json.dumps(figures | {"peak_rss_mb": rss, "tokens": int(totals.sum())}))
    consumer.close()


if __name__ == "__main__":
    main()
