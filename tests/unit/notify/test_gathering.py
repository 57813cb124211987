"""Groups across partitions, by workers over a log of several partitions in memory; and deaths on the way."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.actions.delivery.chain import verify
from spendbrake.actions.delivery.grouping import gathered_at
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import REDRIVEN_HEADER
from spendbrake.schemas.parts.delivery import Delivery, Escalation, Grouping
from spendbrake.schemas.result import Result
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.workers.notify.alerts import InForce
from spendbrake.streams.workers.notify.ledger import LedgerRow, Ledgers
from spendbrake.streams.workers.notify.pulse import Pulse
from spendbrake.streams.workers.notify.worker import Notify
from unit.notify.world import Died, action, until

PARTITIONS = 4
NODES = [f"team-{number}" for number in range(1, 9)]
HOMES = {node: partition_of(node.encode(), PARTITIONS) for node in NODES}
PLAIN = Delivery(inhibit_rules=())
ALL = Grouping(group_wait_s=30, group_interval_s=300)


def place(grouping: Grouping | None = None, kind: str = "scripted") -> Any:
    return SimpleNamespace(type=kind, grouping=grouping)


def alarm(name: str, node: str, *, over: bool = False, **changes: Any) -> Action:
    """News of the alert of a node."""
    more = {"params": {"resolved": True}} if over else {}
    about = {"id": name, "incident": node, "team": node, "partition": HOMES[node], "expires_at": 90_000.0}
    return action(0, node=node, **{**about, **more, **changes})


class Receiver:
    """Keeps what it was sent."""

    name, takes_ids = "scripted", False

    def __init__(self) -> None:
        self.sent: list[Action] = []

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.sent]

    def nodes(self) -> list[list[str]]:
        """The nodes that each message is about."""
        return [
            sorted(line["node"] for line in each.evidence.get("alerts", [{"node": each.node}])) for each in self.sent
        ]

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        self.sent.append(action)
        return {"thread": f"t-{len(self.sent)}"}

    async def find(self, action: Action) -> bool | None:
        return action.id in self.ids


@dataclass
class Log:
    """The actions' log, how far it was acknowledged, and the ledger's changelog: what outlives a process."""

    records: list[list[tuple[bytes, Headers]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    acknowledged: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    rows: dict[tuple[int, str, str], bytes] = field(default_factory=dict)

    def put(self, *actions: Action, headers: Headers = ()) -> None:
        for each in actions:
            self.records[each.partition].append((encode(each), headers))

    def ledgers(self) -> Ledgers:
        ledgers = Ledgers()
        for (partition, key, writer), value in self.rows.items():
            ledgers.load(partition, key, writer, value)
        ledgers.recovered(frozenset(range(PARTITIONS)))
        return ledgers

    def rest(self, partition: int, generation: int) -> Chunk | None:
        """What was not acknowledged of a partition."""
        first, found = self.acknowledged[partition], self.records[partition]
        if first == len(found):
            return None
        values, headers = zip(*found[first:], strict=True)
        return Chunk(
            topic="actions.v1",
            partition=partition,
            generation=generation,
            joins=first,
            first=first,
            last=len(found) - 1,
            offsets=range(first, len(found)),
            values=values,
            keys=[b"k"] * len(values),
            timestamps_ms=[50_000] * len(values),
            headers=headers,
        )


class Life:
    """One process from its start to its end; it dies before its n-th write, or n-th sending on, is safe."""

    def __init__(self, log: Log, receiver: Receiver, rules: InForce, number: int = 1, *, dies_at: int = 0) -> None:
        self.log, self.rules, self.now, self.number, self._left = log, rules, 100.0, number, dies_at
        self.results: list[Result] = []
        self.worker = Notify(
            receiver,
            log.ledgers(),
            self,
            self._publish,
            self._send,
            self._acknowledge,
            f"w-{number}",
            Metrics(),
            clock=lambda: self.now,
            pulse=Pulse(lambda: 0.0, 1.0),
            chance=lambda: 0.0,
            backoff=Backoff(attempts=4, first_s=0.0),
            grace_s=0.0,
            partitions=PARTITIONS,
            in_force=lambda now: self.rules,
        )
        self._ended: asyncio.Task[None] | None = None

    async def write(self, partition: int, rows: Sequence[LedgerRow]) -> None:
        self._step()
        self.log.rows.update({(partition, row.key, f"w-{self.number}"): row.value for row in rows})

    async def bury(self, partition: int) -> None:
        """What others wrote stays."""

    async def remove(self, partition: int, keys: Sequence[str]) -> None:
        self.log.rows = {at: value for at, value in self.log.rows.items() if at[0] != partition or at[1] not in keys}

    @property
    def dead(self) -> bool:
        return self._ended is not None and self._ended.done()

    async def failure(self) -> BaseException | None:
        assert self._ended is not None
        return (await asyncio.gather(self._ended, return_exceptions=True))[0]

    async def hear(self) -> None:
        """Take in all that the log has, and what comes of it, to its end."""
        self._ended = self._ended or asyncio.create_task(self.worker.watch())
        while chunks := [c for p in range(PARTITIONS) if (c := self.log.rest(p, self.number))]:
            for chunk in chunks:
                await self.worker.apply(chunk)
            await until(lambda: self.dead or all(self.log.acknowledged[c.partition] > c.last for c in chunks))
            if self.dead:
                return

    async def at(self, now: float) -> None:
        """Let time come, and what is due be told."""
        self.now = now
        if not self.dead:
            await self.worker.flush_due()
            await until(lambda: self.dead or not self.worker._flushing)

    def ends(self) -> dict[str, str]:
        return {result.action: result.outcome for result in self.results}

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Died

    async def _publish(self, results: Sequence[Result]) -> None:
        await asyncio.sleep(0)
        self.results += results

    async def _send(self, records: Sequence[OutRecord]) -> None:
        self._step()
        for record in records:
            assert record.topic == "actions.v1"
            assert record.partition is not None
            assert record.value is not None
            self.log.records[record.partition].append((record.value, record.headers))

    def _acknowledge(self, chunk: Chunk) -> None:
        assert chunk.joins == self.log.acknowledged[chunk.partition]
        self.log.acknowledged[chunk.partition] = chunk.last + 1


def test_the_partition_of_a_group_is_decided_by_what_an_alert_keeps() -> None:
    assert len(set(HOMES.values())) == PARTITIONS
    mild, bad = (alarm("a", "team-1", severity=severity) for severity in ("warning", "critical"))
    by = Grouping(group_by=("severity",))
    assert gathered_at(mild, by, PARTITIONS) == gathered_at(bad, by, PARTITIONS) is not None
    assert {gathered_at(alarm("a", node), ALL, 64) for node in NODES} == {gathered_at(mild, ALL, 64)}
    assert len({gathered_at(replace(mild, policy=f"p-{n}"), Grouping(group_by=("policy",)), 64) for n in range(9)}) > 1


def test_groups_that_no_other_partition_has_alerts_of_stay_where_their_nodes_are() -> None:
    one = alarm("a", "team-1")
    for grouping in (None, Grouping(group_by=("team",)), Grouping(group_by=("severity", "node"))):
        assert gathered_at(one, grouping, PARTITIONS) is None
    above = replace(one, team="", node="acme")
    assert gathered_at(above, Grouping(group_by=("team",)), PARTITIONS) is not None, (
        "all nodes above teams are one group"
    )


async def test_alerts_of_many_partitions_are_told_in_one_message_and_so_are_their_ends() -> None:
    log, receiver = Log(), Receiver()
    log.put(*(alarm(f"a-{node}", node) for node in NODES))
    life = Life(log, receiver, InForce(PLAIN, {"ops": place(ALL)}))
    await life.hear()
    await life.at(129.0)
    assert receiver.sent == []
    await life.at(130.0)
    assert receiver.nodes() == [NODES]
    assert all(life.ends()[f"a-{node}"] == "done" for node in NODES)
    log.put(*(alarm(f"b-{node}", node, over=True) for node in NODES))
    await life.hear()
    await life.at(431.0)
    assert receiver.nodes() == [NODES, NODES]
    assert receiver.sent[1].params["resolved"]


async def test_news_are_brought_once_though_they_went_on_twice_and_stay_in_their_order() -> None:
    log, receiver = Log(), Receiver()
    rules = InForce(PLAIN, {"ops": place(Grouping(group_wait_s=0, group_interval_s=0))})
    node = next(n for n in NODES if HOMES[n] != gathered_at(alarm("x", n), ALL, PARTITIONS))
    log.put(alarm("a-1", node), alarm("a-2", node))
    life = Life(log, receiver, rules)
    await life.hear()
    assert receiver.ids == ["a-1", "a-2"]
    home = log.records[gathered_at(alarm("x", node), ALL, PARTITIONS) or 0]
    home += [home[0], home[1]]  # whoever had sent them on died before that was acknowledged
    await life.hear()
    assert receiver.ids == ["a-1", "a-2"]
    log.put(alarm("a-3", node, over=True))
    await life.hear()
    home.append(home[0])
    await life.hear()
    assert receiver.ids == ["a-1", "a-2", "a-3"]
    assert receiver.sent[2].params["earlier"] == {"thread": "t-1"}


@pytest.mark.parametrize(("before", "after"), [(None, ALL), (ALL, None), (ALL, Grouping(group_by=("policy",)))])
async def test_an_alert_is_told_to_its_end_where_it_began_whatever_the_policy_says_by_then(
    before: Grouping | None, after: Grouping | None
) -> None:
    log, receiver = Log(), Receiver()
    log.put(*(alarm(f"a-{node}", node) for node in NODES))
    life = Life(log, receiver, InForce(PLAIN, {"ops": place(before)}))
    await life.hear()
    await life.at(130.0)
    told = len(receiver.sent)
    second = Life(log, receiver, InForce(PLAIN, {"ops": place(after)}), 2)
    await second.worker.wake(2)
    log.put(*(alarm(f"b-{node}", node, over=True) for node in NODES))
    await second.hear()
    await second.at(10_000.0)
    assert sorted(chain(*receiver.nodes()[told:])) == NODES, "each end is told, once"
    assert all("earlier" in each.params for each in receiver.sent[told:] if "alerts" not in each.evidence)
    assert not any(row.held for row in _rows(log)), "and nothing is held any more"


async def test_the_shadow_of_a_notification_goes_nowhere() -> None:
    log, receiver = Log(), Receiver()
    log.put(*(alarm(f"a-{node}", node, mode="shadow") for node in NODES))
    life = Life(log, receiver, InForce(PLAIN, {"ops": place(ALL)}))
    await life.hear()
    assert set(life.ends().values()) == {"shadow"}
    assert sum(map(len, log.records)) == len(NODES)


async def test_what_is_sent_again_by_hand_goes_where_its_alert_is_told() -> None:
    log, receiver = Log(), Receiver()
    life = Life(log, receiver, InForce(PLAIN, {"ops": place(ALL)}))
    log.put(*(alarm(f"a-{node}", node) for node in NODES))
    await life.hear()
    await life.at(130.0)
    log.put(alarm("a-team-1", "team-1"), headers=((REDRIVEN_HEADER, b"1"),))
    await life.hear()
    assert len(receiver.sent) == 1, "it was brought in the meantime"
    log.put(alarm("c-team-1", "team-1", over=True), headers=((REDRIVEN_HEADER, b"1"),))
    await life.hear()
    assert receiver.ids[1:] == ["c-team-1"]


async def test_escalations_are_gathered_as_well_and_none_of_a_trouble_that_is_told_there_by_itself() -> None:
    rule = Delivery(inhibit_rules=(), escalation=Escalation(to="boss", after_s=1_000))
    places = {"boss": place(ALL), "ops": place(ALL, "slack"), "mail": place(None, "email")}
    log, receiver = Log(), Receiver()
    news = [
        alarm(f"{name}-{node}", node, effect=kind, destination=name, time=100.0)
        for node in NODES
        for name, kind in (("ops", "slack"), ("mail", "email"))
    ]
    log.put(*news, alarm("boss-team-1", "team-1", destination="boss", time=100.0))
    # Slack's and the mail's own workers have sent theirs on; so has this one, what is for the boss.
    life = Life(log, receiver, InForce(rule, places))
    await life.hear()
    await life.at(130.0)
    assert receiver.ids == ["boss-team-1"]
    await life.at(1_100.0)
    assert receiver.nodes()[1:] == [NODES[1:]], "each trouble once, all in one message"
    log.put(*(replace(each, id=f"{each.id}-over", params={"resolved": True}) for each in news))
    await life.hear()
    await life.at(1_500.0)
    assert sorted(chain(*receiver.nodes()[2:])) == NODES[1:]


def _rows(log: Log) -> list[LedgerRow]:
    ledgers = log.ledgers()
    opened = [ledgers.open(partition, 99, Life(log, Receiver(), InForce())) for partition in range(PARTITIONS)]
    return [row for ledger in opened for row in ledger._rows.values()]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(NODES), st.booleans()), min_size=1, max_size=8),
    st.lists(st.integers(1, 14), max_size=3),
    st.sampled_from([ALL, Grouping(group_by=("severity",), group_wait_s=0, group_interval_s=0)]),
)
def test_deaths_lose_no_end_and_tell_nothing_twice(news: Any, deaths: list[int], grouping: Grouping) -> None:
    log, receiver, lives = Log(), Receiver(), []
    actions = [alarm(f"n-{number}", node, over=over) for number, (node, over) in enumerate(news)]
    log.put(*actions)

    async def live(dies_at: int) -> None:
        life = Life(log, receiver, InForce(PLAIN, {"ops": place(grouping)}), len(lives) + 1, dies_at=dies_at)
        lives.append(life)
        await life.hear()
        if not life.dead:
            await life.worker.wake(life.number)
        for now in (150.0, 500.0, 900.0, 1_300.0):
            await life.at(now)
        if life.dead:
            assert isinstance(await life.failure(), Died)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    for dies_at in [*deaths, 0]:
        asyncio.run(live(dies_at))
    results = [result for life in lives for result in life.results]
    assert {one.id for one in actions} <= {result.action for result in results}, "every action has an end"
    assert len(receiver.ids) == len(set(receiver.ids))
    assert verify(results)[0] == []
    outcomes = {(result.action, result.outcome) for result in results}
    assert len(outcomes) == len({action for action, _ in outcomes}), "and one only"
