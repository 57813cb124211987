"""A peer of the pipeline: bytewax, a tumbling window of tokens by team, without recovery of its state."""

from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import operators as kop
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.testing import run_main
from job import READERS, THRESHOLD, WINDOW_S, Meter, options

Part = tuple[datetime, int]
BATCH = 1_000

asked = options()
meter, read = Meter(asked.events, asked.warm), READERS[asked.wire]


def keyed(message: Any) -> tuple[str, Part] | None:
    if not message.value:
        return None  # a tick
    event = read(message.value)
    meter.count()
    return event["team"], (event["time"], event["input_tokens"] + event["output_tokens"])


def past_threshold(window: tuple[str, tuple[int, int]]) -> bool:
    return window[1][1] > THRESHOLD


def flow() -> Dataflow:
    dataflow = Dataflow("peer")
    read_from = kop.input("read", dataflow, brokers=[asked.bootstrap], topics=[asked.topic], batch_size=BATCH)
    events = op.filter_map("decode", read_from.oks, keyed)
    clock = EventClock(lambda part: part[0], wait_for_system_duration=timedelta(seconds=15))
    windows = TumblingWindower(length=timedelta(seconds=WINDOW_S), align_to=datetime(2020, 1, 1, tzinfo=UTC))
    sums = fold_window(
        "sum", events, clock, windows, lambda: 0, lambda total, part: total + part[1], int.__add__, ordered=False
    )
    over = op.filter("threshold", sums.down, past_threshold)
    op.output("tell", op.map("text", over, str), StdOutSink())
    return dataflow


if __name__ == "__main__":
    run_main(flow())
