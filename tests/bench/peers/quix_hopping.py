"""A peer of the pipeline: quixstreams, a hopping window of tokens by team, its state in RocksDB with a changelog."""

from typing import Any

from job import HOP_S, READERS, THRESHOLD, WINDOW_S, Meter, options
from quixstreams import Application
from quixstreams.models import Deserializer, SerializationContext

asked = options()
meter, read = Meter(asked.events, asked.warm), READERS[asked.wire]


class Events(Deserializer):
    """Decodes as all peers do."""

    def __call__(self, value: bytes, ctx: SerializationContext) -> Any:
        return read(value)


def at_ms(event: Any, *_: Any) -> int:
    return int(event["time"].timestamp() * 1_000)


def tokens(event: Any) -> int:
    meter.count()
    return int(event["input_tokens"] + event["output_tokens"])


def main() -> None:
    app = Application(
        broker_address=asked.bootstrap, consumer_group="peer-quix", auto_offset_reset="earliest",
        state_dir=asked.folder / "state", loglevel="WARNING",
    )  # fmt: skip
    topic = app.topic(asked.topic, value_deserializer=Events(), key_deserializer="str", timestamp_extractor=at_ms)
    sums = app.dataframe(topic).apply(tokens).hopping_window(WINDOW_S * 1_000, HOP_S * 1_000).sum().current()
    sums.filter(lambda window: window["value"] > THRESHOLD).update(lambda _: setattr(meter, "over", meter.over + 1))
    app.run()


if __name__ == "__main__":
    main()
