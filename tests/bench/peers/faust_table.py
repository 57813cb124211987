"""A peer of the pipeline: stock Faust, one agent, one Table of team -> [window, tokens].

The Table's changelog must exist: Faust never assigns the partitions of a topic that it has just created itself.
"""

import faust
from job import READERS, THRESHOLD, WINDOW_S, Meter, options

asked = options()
app = faust.App(
    "peer-faust", broker=f"kafka://{asked.bootstrap}", store="memory://", datadir=str(asked.folder), web_enabled=False,
    autodiscover=False, topic_allow_declare=False, topic_disable_leader=True, consumer_auto_offset_reset="earliest",
    value_serializer="raw", key_serializer="raw", topic_partitions=4,
)  # fmt: skip
app.conf.table_standby_replicas = 0
topic = app.topic(asked.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
table = app.Table("teams", partitions=4, key_type=str, value_type=list)
meter, read = Meter(asked.events, asked.warm), READERS[asked.wire]


@app.agent(topic)
async def total(stream: faust.StreamT) -> None:
    async for value in stream:
        if not value:
            continue  # a tick
        event = read(value)
        team, window = event["team"], int(event["time"].timestamp()) // WINDOW_S
        held = table.get(team)
        tokens = event["input_tokens"] + event["output_tokens"]
        tokens += held[1] if held is not None and held[0] == window else 0
        table[team] = [window, tokens]
        meter.over += tokens > THRESHOLD
        meter.count()


if __name__ == "__main__":
    faust.Worker(app, loglevel="warn").execute_from_commandline()
