"""The private parts of Faust and aiokafka that delivery stands on, pinned: another version fails here, loudly."""

import hashlib
import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from aiokafka.consumer import fetcher as kafka_fetcher
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.producer import AIOKafkaProducer
from faust.app.base import App
from faust.stores import memory
from faust.stores.base import Store
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.tables.table import Table
from faust.transport import base, consumer
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import Message

from spendbrake.streams.transport.app import ChunkApp
from spendbrake.streams.transport.delivery import ChunkDelivery
from spendbrake.streams.transport.kafka import BatchRecords, ChunkThread, KafkaConsumer, KafkaProducer
from spendbrake.streams.transport.store import RowStore, RowTable

REPLACED: dict[Callable[..., Any], str] = {
    # What delivery overrides: our version repeats or drops what theirs does.
    consumer.Consumer._drain_messages: "44a2500309e8",
    consumer.Consumer.getmany: "4b168d84882a",
    consumer.Consumer._wait_next_records: "6218e1969a63",
    consumer.Consumer.ack: "5fcf41cf4515",
    consumer.Consumer._filter_tps_with_pending_acks: "f6f923977423",
    consumer.Consumer._new_offset: "1d2c7ea89a7a",
    consumer.Consumer._commit_offsets: "1a6979904118",
    consumer.Consumer.on_partitions_revoked: "d04b7ae72c6f",
    consumer.ThreadDelegateConsumer._seek: "4f95c6314204",
    driver.Consumer._new_consumer_thread: "0870ec53dea7",
    driver.AIOKafkaConsumerThread.on_start: "38b4e8bd1e10",
    driver.AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f",
    driver.AIOKafkaConsumerThread._fetch_records: "39a2c6c79fc1",
    kafka_fetcher.PartitionRecords._consumer_record: "e668541600b0",
    App.on_rebalance_end: "b7ff69e1e377",
    App.on_stop: "bfe5a933defb",
    Collection._new_store: "914a2bda605d",
    memory.Store.apply_changelog_batch: "71863e3cd727",
    memory.Store.on_recovery_completed: "a00bef343e13",
    Store.on_rebalance: "a32fbe3c18de",
}
RELIED_ON: dict[Callable[..., Any], str] = {
    # What calls them, in which order, with what in between.
    consumer.Consumer.__init__: "302410d59e69",
    consumer.Consumer.force_commit: "cc094614d22c",
    consumer.Consumer._commit_tps: "a20e230b05ae",
    consumer.Consumer._filter_committable_offsets: "dc5e9baf5d99",
    consumer.Consumer._should_commit: "5ce941793947",
    consumer.Consumer.on_partitions_assigned: "29ce96596f05",
    consumer.Consumer.perform_seek: "0e8c130ff4b0",
    consumer.Consumer.pause_partitions: "27a1c94bdacd",
    consumer.Consumer.resume_partitions: "afe6b7c02a41",
    consumer.Consumer._set_active_tps: "401f4dc88319",
    consumer.Consumer.on_buffer_full: "c8961679e0bc",
    consumer.Consumer.on_buffer_drop: "4b57e8a418d5",
    consumer.Consumer.on_stop: "45b1d2210ce2",
    consumer.Fetcher._fetcher.fun: "68f894f0b577",
    driver.ConsumerRebalanceListener.on_partitions_revoked: "348c3aec879f",
    driver.ConsumerRebalanceListener.on_partitions_assigned: "1c1f8406ad36",
    driver.AIOKafkaConsumerThread.getmany: "26fc5fc9f3b6",
    driver.AIOKafkaConsumerThread.seek_wait: "12e8d34e554e",
    driver.AIOKafkaConsumerThread._seek_wait: "9d221e816d94",
    driver.AIOKafkaConsumerThread._commit: "932852ce7a23",
    driver.AIOKafkaConsumerThread.earliest_offsets: "5d697cd76873",
    driver.Producer.key_partition: "c713c4d7b421",
    driver.Producer._settings_default: "9c39987fb719",
    base.Transport.create_consumer: "46cc2bf5ab14",
    Conductor._compile_message_handler: "9fbc0538097a",
    Message.ack: "4751b72c4ed8",
    App.on_rebalance_start: "5c1e23de3067",
    App._on_partitions_revoked: "d5c895bbe57d",
    App._on_partitions_assigned: "de932b7927db",
    App._update_assignment: "39d9f315c122",
    App._stop_consumer: "55854a5de12c",
    TableManager.on_rebalance: "2d2c23a07bf5",
    TableManager._update_channels: "88e3941facc9",
    Recovery.on_rebalance: "aa4d997a1795",
    Recovery._restart_recovery.fun: "6bd8a8558a2d",
    Recovery._resume_streams: "d986a6710c1a",
    Recovery.on_recovery_completed: "6ef567acf072",
    Recovery._slurp_changelogs.fun: "7825c7e50f76",
    Recovery._build_offsets: "27eec86be06c",
    Recovery._seek_offsets: "19598ca63d94",
    Recovery.revoke: "779302ebfab0",
    kafka_fetcher.Fetcher.fetched_records: "be4348896b9b",
    kafka_fetcher.Fetcher._create_fetch_waiter: "61d840568746",
    kafka_fetcher.Fetcher._proc_fetch_request: "59bf948fff47",
    kafka_fetcher.Fetcher.seek_to: "f0ba6aba6c22",
    kafka_fetcher.FetchResult.check_assignment: "b5340df67e3f",
    kafka_fetcher.FetchResult.getall: "3e717e30de50",
    kafka_fetcher.PartitionRecords._unpack_records: "b803e6d46480",
    GroupCoordinator._do_fetch_commit_offsets: "b0f359813271",
    GroupCoordinator.ensure_coordinator_known: "4dfb9ccd877a",
    GroupCoordinator._heartbeat_routine: "61d010289522",
    GroupCoordinator._do_heartbeat: "dc1d6632aaa6",
    GroupCoordinator._start_heartbeat_task: "358d0cfad997",
    GroupCoordinator._send_req: "fa4b12e914ce",
    AIOKafkaConsumer.seek_to_committed: "f6cd85c8b70a",
    AIOKafkaProducer.send_batch: "bf42b0f0c5c0",
    MessageAccumulator.add_batch: "5ed1c5b1367a",
    BatchBuilder.append: "657d76f55157",
}


def digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def test_the_versions_are_the_pinned_ones() -> None:
    assert version("faust-streaming") == "0.15.3"
    assert version("aiokafka").rpartition(".")[0] == "0.14"


@pytest.mark.parametrize(
    ("function", "pinned"), (REPLACED | RELIED_ON).items(), ids=lambda value: getattr(value, "__qualname__", "")
)
def test_the_source_is_the_one_that_was_read(function: Callable[..., Any], pinned: str) -> None:
    assert digest(function) == pinned, f"{function.__qualname__} changed: read it again before pinning the new digest"


@pytest.mark.parametrize(
    ("ours", "names"),
    [
        (
            ChunkDelivery,
            {
                "_drain_messages", "_wait_next_records", "ack", "_filter_tps_with_pending_acks", "_new_offset",
                "_commit_offsets", "on_partitions_revoked",
            },
        ),
        (
            KafkaConsumer,
            {"_new_consumer_thread", "_seek", "look_ahead", "_offsets_of", "_chunk_of", "membership_age_s"},
        ),
        (BatchRecords, {"_consumer_record"}),
        (ChunkThread, {"on_start", "_create_worker_consumer", "_fetch_records"}),
        (KafkaProducer, set()),
        (ChunkApp, {"on_rebalance_end", "on_stop"}),
        (RowStore, {"apply_changelog_batch", "on_rebalance", "on_recovery_completed"}),
        (RowTable, {"_new_store"}),
    ],
)  # fmt: skip
def test_nothing_else_of_theirs_is_overridden(ours: type, names: set[str]) -> None:
    inherited = {name for base_class in ours.__mro__[1:] for name in vars(base_class)}
    mine = {name for name, value in vars(ours).items() if inspect.isfunction(value)}
    assert (mine & inherited) - {"__init__", "__post_init__"} == names


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ChunkDelivery, consumer.Consumer),
        (KafkaConsumer, driver.Consumer),
        (ChunkThread, driver.AIOKafkaConsumerThread),
        (ChunkApp, App),
        (RowStore, memory.Store),
        (RowTable, Table),
    ],
)
def test_overridden_methods_take_what_they_are_given(ours: type, theirs: type) -> None:
    for name, value in vars(ours).items():
        original = getattr(theirs, name, None)
        if inspect.isfunction(value) and inspect.isfunction(original) and not name.startswith("__"):
            mine, parent = list(inspect.signature(value).parameters), list(inspect.signature(original).parameters)
            assert mine == parent, name
            assert inspect.iscoroutinefunction(value) == inspect.iscoroutinefunction(original), name
