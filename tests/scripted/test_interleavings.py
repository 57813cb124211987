"""Random scripts of everything that may happen to a group: nothing is skipped, and no commit passes unfinished work."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from scripted.broker import USAGE, Group, Log

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 7)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("drain"), st.integers(1, 9)),
        st.tuples(st.just("drop"), st.integers(1, 5)),
        st.tuples(st.just("seek"), st.integers(0, 40)),
        st.tuples(st.just("ack"), st.integers(0, 8)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("refuse"), st.just(0)),
        st.tuples(st.just("rebalance"), st.integers(0, 3)),
        st.tuples(st.just("rebalance in a fetch"), st.just(0)),
        st.tuples(st.just("fetch while unsettled"), st.just(0)),
    ),
    max_size=40,
)


class Play:
    """Runs one script and keeps its own books of what was delivered and acknowledged."""

    def __init__(self, directory: Path) -> None:
        self.log = Log(USAGE)
        self.group = Group(self.log, directory)
        self.done: set[int] = set()

    async def run(self, steps: list[tuple[str, int]]) -> None:
        for name, number in steps:
            await getattr(self, name.replace(" ", "_"))(number)
            self.check()
        self.group.consumer.refuses = False
        if {"drop", "seek", "rebalance"} & {name for name, _ in steps}:
            self.log[USAGE].append(1)  # what others took shows when the next record comes
        await self.group.drain_all()
        current = [chunk for chunk in self.group.delivered if chunk.generation == self.generation]
        self.group.ack(*current)
        self.done |= set(self.group.offsets(current))
        await self.group.consumer.commit()
        self.check()
        assert self.done == set(self.log[USAGE].offsets()), "every record was worked off"

    @property
    def generation(self) -> int:
        return self.group.app.consumer_generation_id

    def check(self) -> None:
        committed = self.log[USAGE].committed or 0
        assert set(range(committed)) & set(self.log[USAGE].offsets()) <= self.done, "a commit passed unfinished work"
        for generation in {chunk.generation for chunk in self.group.delivered}:
            chunks = [chunk for chunk in self.group.delivered if chunk.generation == generation]
            offsets = self.group.offsets(chunks)
            whole = self.log[USAGE].offsets(chunks[0].joins)
            assert offsets == whole[: len(offsets)], "records of a generation come whole and in order"
            assert [chunk.joins for chunk in chunks[1:]] == [chunk.last + 1 for chunk in chunks[:-1]]

    async def append(self, records: int) -> None:
        self.log[USAGE].append(records)

    async def mark(self, _: int) -> None:
        self.log[USAGE].mark()

    async def drain(self, most: int) -> None:
        self.group.consumer.most = most
        await self.group.drain()

    async def drop(self, records: int) -> None:
        self.log[USAGE].read(records)

    async def seek(self, offset: int) -> None:
        self.log[USAGE].position = min(offset, len(self.log[USAGE].entries))

    async def ack(self, number: int) -> None:
        if number < len(self.group.delivered):
            chunk = self.group.delivered[-1 - number]
            if chunk.generation == self.generation:
                self.done |= set(chunk.offsets)
            self.group.ack(chunk)

    async def commit(self, _: int) -> None:
        await self.group.consumer.commit()

    async def refuse(self, _: int) -> None:
        self.group.consumer.refuses = not self.group.consumer.refuses

    async def rebalance(self, forward: int) -> None:
        await self.group.rebalance()
        self.log[USAGE].read(forward)

    async def fetch_while_unsettled(self, _: int) -> None:
        self.group.app.settled_generation = None
        await self.group.drain()
        self.group.app.settled_generation = self.generation

    async def rebalance_in_a_fetch(self, _: int) -> None:
        self.group.consumer.before_return = self.group.rebalance
        await self.group.drain()


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happens_every_record_is_delivered_and_none_is_passed_over(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as directory:
            await Play(Path(directory)).run(steps)

    asyncio.run(play())
