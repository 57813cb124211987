"""What a process knows of its place in the group: the group's own word, and when it was asked for."""

import asyncio
import math

from faust.transport.drivers.aiokafka import DEFAULT_GENERATION_ID

from spendbrake.streams.transport.kafka import Membership


class Coordinator:
    """As aiokafka's: joined once, then asked beat by beat."""

    def __init__(self) -> None:
        self.generation, self.now = DEFAULT_GENERATION_ID, 0.0
        self.answers: list[bool | Exception] = []

    async def _heartbeat_routine(self) -> None:
        while self.answers:
            await self._do_heartbeat()

    async def _do_heartbeat(self) -> bool:
        self.now += 2.0
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_only_the_groups_own_word_renews_a_membership_and_from_when_it_was_asked_for() -> None:
    group = Coordinator()
    membership = Membership(group, lambda: group.now)
    assert membership.age_s() == math.inf, "not joined yet"
    group.generation = 7
    await group._heartbeat_routine()
    assert membership.age_s() == 0.0, "just joined"
    group.answers = [False, False]
    await group._do_heartbeat()
    await group._do_heartbeat()
    assert membership.age_s() == 4.0, "no answer, or a refusal"
    group.answers = [True]
    await group._do_heartbeat()
    assert membership.age_s() == 2.0, "the answer may have been given as the question came"
    group.generation = DEFAULT_GENERATION_ID
    assert membership.age_s() == math.inf, "put out"
