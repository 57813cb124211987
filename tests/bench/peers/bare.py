"""A peer of the pipeline: confluent-kafka, fastavro (or orjson) and numpy sums of tokens by team and minute.

No group, no commits, no dedupe, no prices, no budgets, no state kept: what is left when all of that is free.
"""

from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from job import READERS, THRESHOLD, WINDOW_S, Meter, options

BATCH = 1_000
SLOTS = 8
"""Windows kept of each team."""


class Sums:
    """Tokens by team and window; a slot that comes round again begins at nothing."""

    def __init__(self) -> None:
        self._teams: dict[str, int] = {}
        self._sums = np.zeros((1 << 16, SLOTS), np.int64)
        self._window = np.full(SLOTS, -1, np.int64)

    def add(self, rows: list[Any], window: np.ndarray) -> int:
        """Add events; return how many found their team's window past the threshold."""
        for one in np.unique(window).tolist():
            if self._window[one % SLOTS] < one:
                self._window[one % SLOTS] = one
                self._sums[:, one % SLOTS] = 0
        team = np.array([self._teams.setdefault(row["team"], len(self._teams)) for row in rows], np.int64)
        tokens = np.array([row["input_tokens"] + row["output_tokens"] for row in rows], np.int64)
        np.add.at(self._sums, (team, window % SLOTS), tokens)
        return int((self._sums[team, window % SLOTS] > THRESHOLD).sum())


def windows(rows: list[Any], wire: str) -> np.ndarray:
    times = [row["time"].timestamp() if wire == "avro" else row["time"] for row in rows]
    return (np.array(times) // WINDOW_S).astype(np.int64)


def main() -> None:
    asked = options()
    consumer = Consumer({"bootstrap.servers": asked.bootstrap, "group.id": "bare", "enable.auto.commit": False})
    numbers = consumer.list_topics(asked.topic, timeout=20).topics[asked.topic].partitions
    consumer.assign([TopicPartition(asked.topic, number, OFFSET_BEGINNING) for number in numbers])
    meter, sums, read = Meter(asked.events, asked.warm), Sums(), READERS[asked.wire]
    while True:
        values = [message.value() for message in consumer.consume(BATCH, 1.0)]
        rows = [read(value) for value in values if value]  # a tick has none
        if rows:
            meter.over += sums.add(rows, windows(rows, asked.wire))
            meter.count(len(rows))


if __name__ == "__main__":
    main()
