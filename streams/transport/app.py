"""The Faust app of one consumer group: settings that chunk delivery needs, in one place. It declares no agent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import faust
from faust.tables.manager import TableManager
from faust.transport.base import Transport
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from spendbrake.streams.transport.acks import Limits

OnRevoke = Callable[[set[TP]], Awaitable[None]]


@dataclass(slots=True)
class Delivery:
    """How chunk topics are delivered.

    Attributes:
        topics: Names as the broker has them, prefix included.
        passing: Those whose records may be gone before they are read: the next ones say the same.
        chunk_max: Most records a chunk.
        queue: Chunks a partition may have waiting for its agent before reading stops.
        fetch_wait_ms: How long a fetch may wait on idle partitions; busy ones on the same broker wait with it.
        limits: When reading pauses for want of acknowledgements.
        on_revoke: Awaited before partitions are given up (rebalance, graceful stop): snapshot and acknowledge.
    """

    topics: frozenset[str]
    passing: frozenset[str] = frozenset()
    chunk_max: int = 1_000
    queue: int = 8
    fetch_wait_ms: int = 100
    limits: Limits = field(default_factory=Limits)
    on_revoke: OnRevoke | None = None


class ChunkApp(faust.App):
    """A Faust app that knows when a rebalance has really ended.

    Attributes:
        settled_generation: The group's generation whose assignment is complete: tables recovered, positions sought.
    """

    def __init__(self, id: str, *, delivery: Delivery, **options: Any) -> None:
        self.delivery = delivery
        self.settled_generation: int | None = None
        self._failure: Exception | None = None
        super().__init__(id, **options)

    def on_rebalance_end(self) -> None:
        """Note the settled generation; the end of an overtaken rebalance settles nothing.

        Raises:
            Exception: What `fail` was told: Faust's recovery ends with it, and so does the process.
        """
        super().on_rebalance_end()
        if self._failure is not None:
            raise self._failure
        if cast(TableManager, self.tables).recovery._generation_id == self.consumer_generation_id:
            self.settled_generation = self.consumer_generation_id

    def fail(self, reason: Exception) -> None:
        """Let no rebalance end well: for errors raised where Faust only logs them."""
        self._failure = self._failure or reason

    async def on_stop(self) -> None:
        """Give partitions up in good order before the consumer stops."""
        if self._consumer is not None and self._assignment and not self.crashed:
            await cast(Any, self.consumer).give_up(self._assignment)
        # Stopped only by the consumer below, agents would log their cancellation as a crash.
        await self.agents.stop()
        await super().on_stop()


def create_app(
    group: str,
    *,
    broker: str,
    delivery: Delivery,
    data_dir: Path,
    transport: Callable[[Any, Any], Transport],
    session_timeout_s: float = 10.0,
    heartbeat_s: float = 3.0,
    commit_interval_s: float = 1.0,
    **options: Any,
) -> ChunkApp:
    """Return the app of one consumer group, without topics, agents or tables.

    Args:
        group: Consumer group, prefix included.
        broker: `kafka://host:port[,host:port]`.
        delivery: How chunks are delivered.
        data_dir: Must exist; Faust keeps a folder of its own below it.
        transport: `KafkaTransport`, or the embedded broker's.
        session_timeout_s: Silence after which the group takes a worker for dead.
        heartbeat_s: At most a third of the session.
        commit_interval_s: Seconds between commits of what was acknowledged.
        options: More settings of Faust's, which win.

    An exception in an agent ends the process: nothing was acknowledged on its account, and a restart replays it.

    Topics are never declared by the app (`topic_allow_declare` is off): they exist, with leaders, before it starts.
    """
    settings: dict[str, Any] = {
        "broker": broker.replace(",", ";"),
        "datadir": str(data_dir / f"faust-{group}"),
        "web_enabled": False,
        "agent_supervisor": CrashingSupervisor,
        "autodiscover": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "store": "memory://",
        "stream_wait_empty": False,
        "stream_buffer_maxsize": 4096,
        "stream_recovery_delay": 0.0,
        "consumer_auto_offset_reset": "earliest",
        "broker_commit_interval": commit_interval_s,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": heartbeat_s,
        "broker_request_timeout": max(40.0, session_timeout_s),
        "broker_rebalance_timeout": max(2 * session_timeout_s, 20.0),
        "producer_acks": -1,
        "producer_linger": 0.0,
        "producer_max_batch_size": 900_000,
        "producer_max_request_size": 1_000_000,
    }
    app = ChunkApp(group, delivery=delivery, **settings | options)
    app.transport = transport(app.conf.broker_consumer, app)
    return app


def chunk_topic(app: ChunkApp, name: str, partitions: int) -> Any:
    """Return the channel of a chunk topic (broker's name) for an agent: values are `Chunk`."""
    if name not in app.delivery.topics:
        raise ValueError(f"{name} is not among the chunk topics {sorted(app.delivery.topics)}")
    topic = app.topic(
        name,
        partitions=partitions,
        key_type=bytes,
        key_serializer="raw",
        value_type=bytes,
        value_serializer="raw",
        internal=False,
    )
    topic.maxsize = app.delivery.queue  # Faust's app.topic takes `maxsize` and drops it.
    return topic
