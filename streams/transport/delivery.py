"""Chunks through Faust: drain, acknowledge and commit of the chunk topics, to mix into any driver's consumer."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from faust.transport.consumer import Consumer
from faust.types import TP, ConsumerMessage, Message

from spendbrake.streams.transport.acks import InFlight
from spendbrake.streams.transport.app import ChunkApp
from spendbrake.streams.transport.chunk import Chunk, Columns
from spendbrake.streams.transport.join import JoinedDelivery
from spendbrake.streams.transport.port import Log, Run

FETCH_S = 1.0
"""Seconds one wait for records may take."""
HELD_S = 0.02
"""Seconds until it is looked again whether a partition that is held back may be read."""


class Fetched(dict[TP, Any]):
    """Records by partition, lists or columns of them, as a driver's `_getmany` returns them to the mixin.

    Attributes:
        positions: Offset each partition's read began at: what the log holds from there on is all there.
    """

    def __init__(self, records: Mapping[TP, Any], positions: Mapping[TP, int]) -> None:
        super().__init__(records)
        self.positions = positions


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition of a chunk topic is.

    Attributes:
        committed: Offset last committed by this process; None before its first.
        expected: Offset to be delivered next; None before the first run of this generation.
        end: End of the log as last seen; None before the first fetch.
        pending: Oldest offset that was delivered and is not acknowledged; None while there is none.
    """

    committed: int | None
    expected: int | None
    end: int | None
    pending: int | None = None


class ChunkDelivery(Consumer):
    """Mixin for a Faust consumer; the topics in `app.delivery.topics` come as chunks, all others as Faust has them.

    One Faust event is one chunk. Agents iterate `stream.noack()` and acknowledge ranges by `acknowledge`; what Faust
    itself acknowledges for these topics is ignored. A driver supplies `_getmany` returning `Fetched`, and the port
    of joined delivery (`committed`, `log_start`, `log_end`, `seek`).
    """

    app: ChunkApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._delivery = self.app.delivery
        self.joined = JoinedDelivery(cast(Log, self), self._delivery.passing)
        self.in_flight = InFlight(self._delivery.limits)
        self._dropped: set[TP] = set()
        self._ends: dict[TP, int] = {}

    def acknowledge(self, tp: TP, first: int, last: int, generation: int) -> bool:
        """Acknowledge the chunks within `first` to `last`; False, and nothing done, if that generation is over."""
        return self.in_flight.ack(tp, first, last, generation=generation)

    def progress(self) -> dict[TP, Progress]:
        """Return how far each assigned partition of the chunk topics is."""
        return {
            tp: Progress(self._committed_offset[tp], self.joined.expected(tp), self._end(tp), self.in_flight.oldest(tp))
            for tp in self.assignment()
            if tp.topic in self._delivery.topics
        }

    def membership_age_s(self) -> float:
        """Return how long ago the group said that this process is its member; 0 without a group that could end it."""
        return 0.0

    async def look_ahead(self) -> None:
        """Ask the broker where the logs end: of a partition that is not read no fetch tells."""
        mine = [tp for tp in self.assignment() if tp.topic in self._delivery.topics]
        if mine:
            self._ends.update(await self.highwaters(*mine))

    def _end(self, tp: TP) -> int | None:
        ends = [end for end in (self.highwater(tp), self._ends.get(tp)) if end is not None]
        return max(ends, default=None)

    async def give_up(self, tps: Iterable[TP]) -> None:
        """Let the worker snapshot and acknowledge, then commit; called before partitions are given up.

        A failure, or taking longer than nine tenths of the session, crashes the app: others take over from the commit.
        """
        mine = {tp for tp in tps if tp.topic in self._delivery.topics}
        if mine and not self.crashed:
            try:
                async with asyncio.timeout(self.app.conf.broker_session_timeout * 0.9):
                    if self._delivery.on_revoke is not None:
                        await self._delivery.on_revoke(mine)
                    await self.force_commit()
            except Exception as exc:
                await self.crash(exc)
        self.in_flight.forget(mine)

    # Deliver

    def _may_deliver(self, generation: int) -> bool:
        app = self.app
        return bool(
            app.flow_control.is_active()
            and not app.rebalancing
            and generation == app.consumer_generation_id == app.settled_generation
        )

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._drain_once()
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as exc:
            if isinstance(exc, self.consumer_stopped_errors) and self.app.should_stop:
                return
            self.log.exception("Delivery failed: %r", exc)
            raise

    async def _drain_once(self) -> None:
        generation = self.app.consumer_generation_id
        await self._rewind(generation)
        records, active = await self._wait_next_records(FETCH_S)
        await asyncio.sleep(0)
        if not records or self.should_stop:
            return
        singles = {}
        for tp, found in records.items():
            if tp.topic in self._delivery.topics:
                await self._deliver_run(TP(*tp), found, cast(Fetched, records).positions[tp], generation)
            else:
                singles[tp] = found
        if singles and self.flow_active:
            await self._deliver_singles(singles, active, self.app.consumer_generation_id)

    async def _rewind(self, generation: int) -> None:
        """Go back to what was read and not delivered: nothing more may come that would show the hole."""
        if self._dropped and self._may_deliver(generation):
            dropped, self._dropped = self._dropped, set()
            for tp in dropped & self.assignment():
                await self.joined.rewind(tp, generation)

    async def _deliver_run(self, tp: TP, records: Sequence[Any], position: int, generation: int) -> None:
        if not self._may_deliver(generation):
            self._dropped.add(tp)
            return
        offsets = self._offsets_of(records)
        start = await self.joined.admit(Run(tp, position, offsets), generation)
        if start is None:
            return
        size = self._delivery.chunk_max
        for at in range(start, len(offsets), size):
            if not self._may_deliver(generation):
                self._dropped.add(tp)
                return
            await self._deliver_chunk(tp, records[at : at + size], offsets[at : at + size], generation)
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))

    async def _deliver_chunk(self, tp: TP, records: Sequence[Any], offsets: Sequence[int], generation: int) -> None:
        joins = self.joined.delivered(tp, offsets[0], offsets[-1])
        chunk = self._chunk_of(tp, records, offsets, joins=joins, generation=generation)
        now = asyncio.get_running_loop().time()
        self.in_flight.delivered(tp, chunk.first, chunk.last, generation=generation, at=now)
        at_s = chunk.timestamps_ms[-1] / 1000.0
        value = cast(bytes, chunk)  # Faust passes it on untouched: the topic's codec is raw
        message = ConsumerMessage(
            tp.topic, tp.partition, chunk.last, at_s, 0, [], None, value, None, 0, 0, tp, generation_id=generation
        )
        await self.wait_first(self.callback(message), self.suspend_flow.wait())

    # A driver whose records already are columns overrides these two.

    def _offsets_of(self, records: Any) -> Sequence[int]:
        return [record.offset for record in records]

    def _chunk_of(self, tp: TP, records: Any, offsets: Sequence[int], *, joins: int, generation: int) -> Chunk:
        del offsets
        return Chunk.of(tp, Columns.of(records), joins=joins, generation=generation)

    async def _deliver_singles(self, records: Mapping[TP, list[Any]], active: Any, generation: int) -> None:
        """Deliver record by record, as Faust's own drain does (changelogs, low-rate topics)."""
        for tp, record in self.scheduler.iterate(records):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            message, read = self._to_message(tp, record), self._read_offset[tp]
            if read is not None and message.offset < read:
                continue
            if read and message.offset - read > 1 and self.app.topics.acks_enabled_for(message.topic):
                await self._add_gap(tp, read + 1, message.offset)
            await self.wait_first(self.callback(message), self.suspend_flow.wait())
            self._read_offset[tp] = message.offset

    async def _wait_next_records(self, timeout: float) -> Any:
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        active = self._get_active_partitions()
        paused = self.in_flight.paused(asyncio.get_running_loop().time())
        readable = active - paused if paused else active
        if not readable:
            await self.sleep(HELD_S)
            return {}, active
        # Idle ones must not hold up one whose chunks are worked off meanwhile.
        held = bool(paused or self._buffered_partitions)
        return await self._getmany(readable, HELD_S if held else timeout), active

    # Acknowledge and commit

    def ack(self, message: Message) -> bool:
        """Acknowledge one message of another topic; chunks are acknowledged by range."""
        if message.topic not in self._delivery.topics:
            return bool(super().ack(message))
        message.acked = True
        return False

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp in super()._filter_tps_with_pending_acks(topics):
            if tp.topic not in self._delivery.topics:
                yield tp
            elif self._acked_index[tp]:
                raise RuntimeError(f"{tp.topic}: its agent must iterate stream.noack() and acknowledge ranges")
        for place in self.in_flight.partitions():
            tp = TP(*place)
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic in self._delivery.topics:
            return self.in_flight.committable(tp)
        offset: int | None = super()._new_offset(tp)
        return offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        # Faust's flushes the producer first, which does not return while records keep coming. What a chunk
        # caused was acknowledged by the broker before the chunk was.
        # A crash ends the driver's thread as well: a commit asked of it then would never return, nor would the stop.
        assignment = set() if self.app.crashed else self.assignment()
        mine = {tp: offset for tp, offset in offsets.items() if tp in assignment}
        if not mine or not await self._commit(mine):
            return False
        self.app.tables.on_commit(mine)
        self._committed_offset.update(mine)
        for tp, offset in mine.items():
            self.in_flight.committed(tp, offset)
        self.app.monitor.on_tp_commit(mine)
        return True

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Snapshot, acknowledge and commit while the partitions are still ours; Faust drops what is pending first."""
        await self.give_up(revoked)
        await super().on_partitions_revoked(revoked)
