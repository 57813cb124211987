"""Asking aiokafka's coordinator for a commit: what it answers while it loads is no answer."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, KafkaError
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from spendbrake.streams.transport.kafka import committed

USAGE = ("usage.v1", 2)
LOADING, NOT_COORDINATOR, FORBIDDEN = 14, 16, 30


def answer(offset: int | None = None, *, group: int = 0, partition: int = 0) -> OffsetFetchResponse_v3:
    """What a broker answers; without an offset as it does when the whole group is in error."""
    topics = [] if offset is None else [(USAGE[0], [(USAGE[1], offset, "", partition)])]
    return OffsetFetchResponse_v3(0, topics, group)


class Coordinator:
    """The coordinator of a consumer, with answers that a test puts in."""

    group_id = "burn"

    def __init__(self, *answers: OffsetFetchResponse_v3 | KafkaError) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.looked_up = 0
        self._known = False

    async def ensure_coordinator_known(self) -> None:
        self.looked_up += not self._known
        self._known = True

    def coordinator_dead(self) -> None:
        self._known = False

    async def _send_req(self, request: Any) -> OffsetFetchResponse_v3:
        found = next(self._answers)
        if isinstance(found, KafkaError):
            raise found
        return found


async def ask(coordinator: Coordinator) -> int | None:
    return await committed(coordinator, USAGE, pause_s=0.0)


async def test_a_coordinator_that_loads_is_no_group_without_a_commit() -> None:
    assert await ask(Coordinator(answer(group=LOADING), answer(group=LOADING), answer(1_469))) == 1_469


async def test_a_group_without_a_commit_has_none() -> None:
    assert await ask(Coordinator(answer(-1))) is None
    assert await ask(Coordinator(answer())) is None


async def test_another_coordinator_is_looked_up() -> None:
    coordinator = Coordinator(answer(group=NOT_COORDINATOR), answer(-1, partition=NOT_COORDINATOR), answer(7))
    assert (await ask(coordinator), coordinator.looked_up) == (7, 3)


async def test_a_broken_connection_is_tried_again() -> None:
    assert await ask(Coordinator(KafkaConnectionError(), answer(7))) == 7


async def test_what_will_not_change_is_raised() -> None:
    with pytest.raises(GroupAuthorizationFailedError, match=r"usage\.v1/2"):
        await ask(Coordinator(answer(group=FORBIDDEN)))
