"""Groups across partitions, by workers over a log of several partitions in memory; and deaths on the way."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.actions.delivery.chain import verify
from spendbrake.actions.delivery.grouping import gathered_at
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import GATHERED_HEADER, GATHERED_NEWS, ORIGIN_HEADER, REDRIVEN_HEADER
from spendbrake.schemas.parts.delivery import Delivery, Escalation, Grouping
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.offline.rehome import Move, ledger_rows
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.workers.notify.alerts import InForce
from spendbrake.streams.workers.notify.ledger import LedgerRow
from unit.notify.logs import PARTITIONS, Life, Log
from unit.notify.world import Died, action

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


async def test_news_that_were_overtaken_on_their_way_are_not_told_after_later_ones() -> None:
    log, receiver = Log(), Receiver()
    rules = InForce(PLAIN, {"ops": place(Grouping(group_wait_s=0, group_interval_s=0))})
    home = gathered_at(alarm("x", "team-1"), ALL, PARTITIONS)
    for name, offset in (("a-2", 8), ("a-1", 7)):
        log.put(alarm(name, "team-1", partition=home), headers=sent_on(f"actions.v1/{HOMES['team-1']}/{offset}"))
    life = Life(log, receiver, rules)
    await life.hear()
    assert (receiver.ids, life.ends()) == (["a-2"], {"a-2": "done", "a-1": "superseded"})


async def test_news_of_a_node_that_has_moved_are_not_old_because_their_log_is_shorter() -> None:
    log, receiver = Log(), Receiver()
    rules = InForce(PLAIN, {"ops": place(Grouping(group_wait_s=0, group_interval_s=0))})
    home = gathered_at(alarm("x", "team-1"), ALL, PARTITIONS)
    for name, origin in (("a-1", "actions.v1/3/900"), ("a-2", "actions.v1/1/5"), ("a-3", "r2-actions.v1/3/0")):
        log.put(alarm(name, "team-1", partition=home), headers=sent_on(origin))
    await Life(log, receiver, rules).hear()
    assert receiver.ids == ["a-1", "a-2", "a-3"]


@pytest.mark.parametrize("after", [1, 8, 5])
async def test_alerts_go_over_to_another_number_of_partitions_and_end_as_they_began(after: int) -> None:
    log, receiver = Log(), Receiver()
    rules = InForce(PLAIN, {"ops": place(ALL)})
    log.put(*(alarm(f"a-{node}", node) for node in NODES))
    life = Life(log, receiver, rules)
    await life.hear()
    await life.at(130.0)
    before = [{key: row for (number, key, _), row in log.rows.items() if number == p} for p in range(PARTITIONS)]
    held = [{key: row for key, row in rows.items() if "/" in key} for rows in before]
    new = Log([[] for _ in range(after)], [0] * after, topic="r2-actions.v1")
    for number, row in ledger_rows(held, Move(PARTITIONS, after, 2), rules.destinations, 130.0):
        new.rows[number, row.key, "rehome"] = row.value
    second = Life(new, receiver, rules, 2)
    for node in NODES:
        home = partition_of(node.encode(), after)
        new.put(alarm(f"b-{node}", node, over=True, partition=home), alarm(f"c-{node}", node, turn=1, partition=home))
    await second.hear()
    await second.at(131.0)
    assert len(receiver.sent) == 1, "the group waits for its interval"
    await second.at(10_000.0)
    assert [len(each.evidence["alerts"]) for each in receiver.sent[1:]] == [2 * len(NODES)]


async def test_what_was_told_before_its_destination_was_grouped_is_not_told_again_elsewhere() -> None:
    log, receiver = Log(), Receiver()
    log.put(*(each for node in NODES for each in (alarm(f"a-{node}", node), alarm(f"b-{node}", node, over=True))))
    await Life(log, receiver, InForce(PLAIN, {"ops": place()})).hear()
    log.acknowledged = [0] * PARTITIONS  # the process has died before that was safe
    second = Life(log, receiver, InForce(PLAIN, {"ops": place(ALL)}), 2)
    await second.hear()
    await second.at(10_000.0)
    assert len(receiver.ids) == 2 * len(NODES) == sum(map(len, log.records))


@pytest.mark.parametrize("kind", ["slack", "scripted"])
async def test_escalations_are_gathered_as_well_and_none_of_a_trouble_that_is_told_there_by_itself(kind: str) -> None:
    rule = Delivery(inhibit_rules=(), escalation=Escalation(to="boss", after_s=1_000))
    places = {"boss": place(ALL), "ops": place(ALL, kind), "mail": place(None, "email")}
    log, receiver = Log(), Receiver()
    news = [
        alarm(f"{name}-{node}", node, effect=effect, destination=name, time=100.0)
        for node in NODES
        for name, effect in (("ops", kind), ("mail", "email"))
    ]
    log.put(*news, alarm("boss-team-1", "team-1", destination="boss", time=100.0))
    for each in news:  # as Slack's own workers send on
        if each.effect == "slack" and (home := gathered_at(each, ALL, PARTITIONS)) is not None:
            log.put(replace(each, partition=home), headers=sent_on(f"actions.v1/{each.partition}/1"))

    def told() -> list[list[str]]:
        return [
            nodes for each, nodes in zip(receiver.sent, receiver.nodes(), strict=True) if each.destination == "boss"
        ]

    life = Life(log, receiver, InForce(rule, places))
    await life.hear()
    await life.at(130.0)
    assert told() == [["team-1"]]
    await life.at(1_100.0)
    assert told()[1:] == [NODES[1:]], "each trouble once, all in one message"
    log.put(*(replace(each, id=f"{each.id}-over", params={"resolved": True}) for each in news))
    await life.hear()
    await life.at(1_500.0)
    assert sorted(chain(*told()[2:])) == NODES[1:]
    assert len(receiver.ids) == len(set(receiver.ids))


def sent_on(origin: str) -> Headers:
    return ((GATHERED_HEADER, GATHERED_NEWS), (ORIGIN_HEADER, origin.encode()))


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
