"""What the embedded transport uses of Faust behind its back, pinned: another version fails here, loudly."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from faust.app.base import App
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor
from faust.channels import Channel
from faust.topics import Topic
from faust.transport import base, consumer, producer
from faust.transport.conductor import Conductor
from faust.types import TP

from spendbrake.streams.transport.delivery import ChunkDelivery
from spendbrake.streams.transport.embedded.consumer import EmbeddedConsumer
from spendbrake.streams.transport.embedded.transport import EmbeddedProducer, EmbeddedTransport

RELIED_ON: dict[Callable[..., Any], str] = {
    # The rebalance is ours here: who waits for whom, and what is asked of the assignor.
    Conductor._subscriber.fun: "2a7908583404",
    Conductor._update_indices: "619b3247b96a",
    PartitionAssignor.on_assignment: "72f34bf053d6",
    PartitionAssignor.assigned_actives: "cd131e593509",
    PartitionAssignor.assigned_standbys: "c3cff0940914",
    PartitionAssignor.is_active: "8217e8078e8c",
    PartitionAssignor.is_standby: "58aa2486e5ba",
    # What a driver may or must override.
    consumer.Consumer.seek: "b86a9fe05f95",
    consumer.Consumer.stop_flow: "cf7e875a2b0d",
    consumer.Consumer.resume_partitions: "afe6b7c02a41",
    consumer.Consumer.on_buffer_drop: "4b57e8a418d5",
    producer.Producer.__init__: "5c53a4b47aa1",
    producer.ProducerBuffer._send_pending: "4a9d5f932b56",
    producer.ProducerBuffer.flush_atmost: "4966e8c5f9b4",
    base.Transport.create_producer: "2de47ba78c94",
    Topic.publish_message: "4ce1cbc35304",
    # `app.topic` drops `maxsize`; a clone takes the channel's.
    App.topic: "7b040db38d3b",
    Channel._clone_args: "8f29b1a993ef",
}


def digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("function", "pinned"), RELIED_ON.items(), ids=lambda value: getattr(value, "__qualname__", "")
)
def test_the_source_is_the_one_that_was_read(function: Callable[..., Any], pinned: str) -> None:
    assert digest(function) == pinned, f"{function.__qualname__} changed: read it again before pinning the new digest"


def test_every_abstract_method_of_a_driver_is_there() -> None:
    assert not EmbeddedConsumer.__abstractmethods__ - ChunkDelivery.__abstractmethods__
    assert not inspect.isabstract(EmbeddedConsumer)
    assert not inspect.isabstract(EmbeddedProducer)
    assert not inspect.isabstract(EmbeddedTransport)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(EmbeddedConsumer, consumer.Consumer), (EmbeddedProducer, producer.Producer)]
)
def test_overridden_methods_are_called_as_theirs_are(ours: type, theirs: type) -> None:
    for name, value in vars(ours).items():
        original = getattr(theirs, name, None)
        if inspect.isfunction(value) and inspect.isfunction(original) and not name.startswith("__"):
            assert inspect.iscoroutinefunction(value) == inspect.iscoroutinefunction(original), name
            takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(value).parameters.values())
            if not takes_all:
                mine, parent = list(inspect.signature(value).parameters), list(inspect.signature(original).parameters)
                assert mine == parent, name


def test_an_assignment_is_what_the_assignor_answers_from() -> None:
    assignment = ClientAssignment(actives={"t": [0, 1]}, standbys={})
    assert assignment.active_tps == {TP("t", 0), TP("t", 1)}
    assert assignment.standby_tps == set()
    source = inspect.getsource(PartitionAssignor.__init__)
    assert all(name in source for name in ("self._assignment", "self._active_tps", "self._standby_tps"))
