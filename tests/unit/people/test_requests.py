"""What became of requests: findings are read once, however often and by however many it is asked for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from spendbrake.schemas.finding import COMMAND, FEEDBACK, Finding
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.requests import MOST_TOLD, RequestBook

NOW, DAY_S = 1_700_000_000.0, 86_400.0
PLACE = Place(prefix="x-", partitions=2, usage_retention_s=1.0)


def told(request: str, number: int, at: float = NOW, **kw: Any) -> bytes:
    fields: dict[str, Any] = {
        "id": f"{request}-{number}", "time": at, "team": "a", "node": "a", "severity": "info", "detector": COMMAND,
        "family": COMMAND, "reason": f"{request} {number}", "state": "open", "incident": request,
    }  # fmt: skip
    return encode(Finding(**(fields | kw)))


class Log:
    """Partitions that are handed out in runs of three, and how many records were."""

    def __init__(self) -> None:
        self.partitions: list[list[bytes | None]] = [[], []]
        self.read, self.fails_after = 0, 10**9

    async def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Sequence[bytes | None]]:
        assert topic == "x-findings.v1"
        for number, values in enumerate(self.partitions):
            while (at := positions.get(number, 0)) < len(values):
                if self.read > self.fails_after:
                    raise ConnectionError
                await asyncio.sleep(0)
                run = values[at : at + 3]
                self.read += len(run)
                yield run
                positions[number] = at + len(run)


def names(found: dict[str, list[Finding]]) -> dict[str, list[str]]:
    return {name: [finding.id for finding in each] for name, each in found.items()}


async def test_a_finding_is_read_once_and_what_has_come_since_is_told() -> None:
    log = Log()
    log.partitions[0] += [told("r1", 0), b"no finding", told("other", 0, detector="retry_loop"), None] * 50
    log.partitions[1] += [told("r1", 1, NOW + 1), told("w", 0, family=FEEDBACK)]
    book = RequestBook(log, PLACE)
    for _ in range(5):
        assert names(await book.read()) == {"r1": ["r1-0", "r1-1"]}
    assert log.read == 202
    log.partitions[1].append(told("r2", 0, NOW + 2))
    assert names(await book.read()) == {"r1": ["r1-0", "r1-1"], "r2": ["r2-0"]}
    assert log.read == 203


async def test_two_who_ask_at_once_read_it_once_between_them() -> None:
    log = Log()
    log.partitions[0] += [told(f"r{i}", 0) for i in range(50)]
    book = RequestBook(log, PLACE)
    first, second = await asyncio.gather(book.read(), book.read())
    assert first == second
    assert log.read == 50


async def test_a_reading_that_breaks_off_is_gone_on_with() -> None:
    log = Log()
    book = RequestBook(log, PLACE)
    log.partitions[0] += [told(f"r{i:02}", 0) for i in range(30)]
    log.fails_after = 10
    with pytest.raises(ConnectionError):
        await book.read()
    log.fails_after = 10**9
    assert list(names(await book.read())) == [f"r{i:02}" for i in range(30)]
    assert log.read == 30


async def test_a_process_that_begins_later_knows_the_same() -> None:
    log = Log()
    early = RequestBook(log, PLACE)
    for day in range(80):
        log.partitions[day % 2].append(told(f"r{day:02}", 0, NOW + day * DAY_S))
        await early.read()
    gone = 80 - 31  # the log keeps thirty days
    log.partitions = [values[gone // 2 :] for values in log.partitions]
    late = await RequestBook(log, PLACE).read()
    assert names(await early.read()) == names(late) == {f"r{day:02}": [f"r{day:02}-0"] for day in range(49, 80)}


async def test_as_many_as_are_kept_are_the_last_ones() -> None:
    log = Log()
    log.partitions[0] += [told(f"r{i}", 0, NOW + i) for i in range(9)]
    log.partitions[1] += [told("r0", 1, NOW + 20)]
    assert list(await RequestBook(log, PLACE, most=5).read()) == ["r5", "r6", "r7", "r8", "r0"]


async def test_a_request_that_is_told_of_without_end_keeps_its_beginning_and_its_last_news() -> None:
    log = Log()
    log.partitions[0] += [told("r", i, NOW + i) for i in range(3 * MOST_TOLD)]
    (found,) = (await RequestBook(log, PLACE).read()).values()
    assert [found[0].id, found[1].id, found[-1].id] == ["r-0", f"r-{2 * MOST_TOLD + 1}", f"r-{3 * MOST_TOLD - 1}"]
