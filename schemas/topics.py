"""The table of topics: name, key, what decides the partition, retention. One row a topic; code names none elsewhere."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Retention: TypeAlias = Literal["log", "compact"]
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic.

    Attributes:
        name: Without the deployment's prefix.
        key: What the record key holds, in words.
        partitioned: True when it has the fixed number of partitions; False = one partition.
        append_time: Whether the broker stamps records (LogAppendTime): the engine's clock.
        retention_s: For logs; None = the deployment's setting for usage.
        cleanup: `compact` keeps the last record a key.
    """

    name: str
    key: str
    partitioned: bool = True
    append_time: bool = False
    retention_s: int | None = 30 * DAY_S
    cleanup: Retention = "log"


USAGE = Topic(name="usage.v1", key="team", append_time=True, retention_s=None)
ROLLUPS = Topic(name="rollups.v1", key="parent", append_time=True, retention_s=7 * DAY_S)
ACTIONS = Topic(name="actions.v1", key="node")
STANDING = Topic(name="standing.v1", key="node", retention_s=900)
"""What gateways must know, told again and again: each pass is whole, so none is kept for long, or missed."""
FINDINGS = Topic(name="findings.v1", key="node")
RESULTS = Topic(name="results.v1", key="action", retention_s=400 * DAY_S)
CONTROL = Topic(name="control.v1", key="record", partitioned=False, cleanup="compact", retention_s=None)
USAGE_DLQ = Topic(name="usage.dlq.v1", key="as received")
ACTIONS_DLQ = Topic(name="actions.dlq.v1", key="node")

TOPICS: tuple[Topic, ...] = (USAGE, ROLLUPS, ACTIONS, STANDING, FINDINGS, RESULTS, CONTROL, USAGE_DLQ, ACTIONS_DLQ)

PARTITIONS_KAFKA = 32
PARTITIONS_EMBEDDED = 4
