"""Reading on: what is remembered of a log against a recount of it, and a topic read once by each process."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import BUDGET, Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, STANDING
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.judge.orders import feedback_of
from spendbrake.streams.transport.admin import plan
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.actions import ActionBook
from spendbrake.streams.workers.people.feedback import word_on
from spendbrake.streams.workers.people.incidents import IncidentBook
from spendbrake.streams.workers.people.precision import Record
from spendbrake.streams.workers.people.reading import Memory

NOW, DAY_S = 1_700_000_000.0, 86_400.0
PLACE = Place(prefix="", partitions=2, usage_retention_s=1.0)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60))), st.integers(1, 6))
def test_what_was_told_of_last_is_remembered(news: list[tuple[str, int]], most: int) -> None:
    memory: Memory[str, int] = Memory(most, 20)
    last: dict[str, int] = {}
    for number, (key, at) in enumerate(news):
        memory.put(key, number, at)
        last[key] = max(at, last.get(key, at))
        if len(last) > most:
            del last[min(last, key=lambda each: (last[each], each))]
        assert memory.known.keys() == last.keys()
    memory.forget()
    newest = max((at for _, at in news), default=0)
    assert set(memory.known) == {key for key, at in last.items() if at >= newest - 20}
    assert memory.known == {key: max(n for n, (k, _) in enumerate(news) if k == key) for key in memory.known}


class Log:
    """One partition, handed out in runs of three; the part that its age has taken away is empty."""

    def __init__(self, *values: bytes | None) -> None:
        self.values, self.read = list(values), 0

    async def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Sequence[bytes | None]]:
        if topic == STANDING.name:
            return
        while values := self.values[(at := positions.get(0, 0)) : at + 3]:
            self.read += len(values)
            yield values
            positions[0] = at + len(values)


def finding(number: int, at: float, **more: Any) -> Finding:
    fields: dict[str, Any] = {
        "id": f"{number:08}-finding", "time": at, "team": "a", "node": "a", "severity": "warning",
        "detector": "local_z", "family": "rate", "reason": "r", "incident": f"{number:08}-incident",
        "evidence": {"much": "x" * 100},
    }  # fmt: skip
    return Finding(**(fields | more))


def action(number: int, at: float, **more: Any) -> Action:
    fields: dict[str, Any] = {
        "id": f"{number:08}-action", "time": at, "team": "a", "node": f"n{number}", "effect": "limits", "policy": "p",
        "rung": "r", "severity": "warning", "verdict": "block", "reason": "", "finding": f"{number:08}-finding",
        "stamp": Stamp(epoch=1, offset=number), "partition": 0, "expires_at": at,
        "evidence": {"rate_usd_h": 3.5, "much": "x" * 100}, "params": {"beyond_percent": 60.0, "max_rps": 1},
    }  # fmt: skip
    return Action(**(fields | more))


async def test_an_order_that_is_given_again_and_again_is_remembered_once() -> None:
    again = [encode(action(1, NOW + 30 * turn, mode="shadow")) for turn in range(50)]
    book = ActionBook(Log(b"no action", None, *again, encode(action(2, NOW))), PLACE)
    shadows, last = await book.shadows()
    assert [(each.id, each.time) for each in shadows] == [("00000001-action", NOW)]
    assert last == NOW + 49 * 30
    assert (shadows[0].evidence, shadows[0].params) == ({"rate_usd_h": 3.5}, {"beyond_percent": 60.0})
    assert await book.finding_of("00000002") == "00000002-finding"
    assert await book.finding_of("0000000") is None, "seven digits name nothing"


async def test_an_alert_is_known_by_any_of_its_notifications_and_no_two_by_one_name() -> None:
    told = [action(number, NOW, effect="slack", destination="ops") for number in (1, 2)]
    log = Log(*map(encode, told), encode(action(3, NOW)))
    book = ActionBook(log, PLACE)
    assert trouble_key(await book.alert("00000002")) == trouble_key(told[1])
    for name in ("00000003", "nothing-here"):
        with pytest.raises(LookupError, match="unknown, or older"):
            await book.alert(name)
    log.values.append(encode(replace(told[0], id="00000002-other")))
    with pytest.raises(LookupError, match="give more of it"):
        await book.alert("00000002")
    assert (await book.alert("00000002-action")).node == "n2"
    assert log.read == 4


async def test_incidents_older_than_the_log_are_forgotten_like_one_who_begins_now_never_knew_them() -> None:
    log = Log()
    early = IncidentBook(log, PLACE, ActionBook(Log(), PLACE))
    for day in range(60):
        log.values.append(encode(finding(day, NOW + day * DAY_S)))
        await early.report()
    log.values[:29] = [None] * 29
    late = IncidentBook(log, PLACE, ActionBook(Log(), PLACE))
    assert await early.report() == await late.report()
    assert (await early.report()).detectors == {"local_z": Record(incidents=31)}
    for book in (early, late):
        assert (await book.find("00000029")).incident == "00000029-incident"
        with pytest.raises(LookupError, match="older than the log"):
            await book.find("00000028")


async def test_incidents_that_are_no_longer_remembered_are_not_found_by_their_findings_either() -> None:
    log = Log(*(encode(finding(number, NOW + number)) for number in range(9)))
    log.values += [encode(finding(number, NOW, detector=BUDGET)) for number in range(20, 90)]
    book = IncidentBook(log, PLACE, ActionBook(Log(), PLACE), most=5)
    assert (await book.report()).detectors == {"local_z": Record(incidents=5)}, "budgets take nobody's place"
    assert (await book.find("00000004-finding")).evidence == {}
    with pytest.raises(LookupError):
        await book.find("00000003-finding")


class Counted:
    """A broker, and how many records were read of each topic."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.read: dict[str, int] = {}

    async def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Sequence[bytes | None]]:
        async for values in self._broker.rest(topic, positions):
            self.read[topic] = self.read.get(topic, 0) + len(values)
            yield values


async def test_two_processes_and_one_that_comes_later_know_the_same_and_read_each_record_once(tmp_path: Path) -> None:
    with contextlib.closing(EmbeddedBroker(tmp_path, lambda: NOW)) as broker:
        await broker.create_topics(plan("", 2, usage_retention_s=1.0, topics=(FINDINGS, ACTIONS, STANDING)))

        async def say(topic: str, *messages: Any) -> None:
            for number, message in enumerate(messages):
                await (await broker.send(topic, key=None, value=encode(message), partition=number % 2))

        def process() -> tuple[Counted, ActionBook, IncidentBook]:
            log = Counted(broker)
            actions = ActionBook(log, PLACE)
            return log, actions, IncidentBook(log, PLACE, actions)

        running = [process(), process()]
        opened = [finding(number, NOW + number) for number in range(6)]
        await say(FINDINGS.name, *opened)
        await say(ACTIONS.name, *(action(number, NOW, mode="shadow") for number in range(6)))
        await say(STANDING.name, action(2, NOW + 9, mode="shadow"))
        for _, actions, incidents in running:
            for number in range(6):
                assert (await incidents.find(f"{number:08}-action")).id == opened[number].id
            assert len((await actions.shadows())[0]) == 6
        await say(FINDINGS.name, feedback_of(word_on(opened[3], "real", "w", "fay", NOW), "a", NOW + 9))
        running.append(process())
        for log, actions, incidents in running:
            report = await incidents.report()
            assert report.detectors == {"local_z": Record(incidents=6, real=1)}
            assert [each.incident for each in report.said] == [opened[3].incident]
            assert {each.node for each in (await actions.shadows())[0]} == {f"n{number}" for number in range(6)}
            assert log.read == {FINDINGS.name: 7, ACTIONS.name: 6, STANDING.name: 1}
