"""Writing by the batch: order, batches, failures and those who do not wait."""

import asyncio
from collections.abc import Sequence

import pytest

from spendbrake.streams.workers.notify.together import Together


class Disk:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.broken = False

    async def write(self, items: Sequence[int]) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("disk full")
        self.batches.append(list(items))


async def test_what_comes_during_a_write_goes_out_together_in_order() -> None:
    disk = Disk()
    together: Together[int] = Together(disk.write, most=3)
    first = together.put(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, *(together.put(number) for number in range(1, 6)))
    assert disk.batches == [[0], [1, 2, 3], [4, 5]]
    await together.put(6)
    assert disk.batches[-1] == [6]


async def test_a_result_completes_only_after_its_write() -> None:
    disk = Disk()
    done = Together(disk.write).put(1)
    assert not done.done()
    await done
    assert disk.batches == [[1]]


async def test_what_nobody_waits_for_any_more_is_written_all_the_same() -> None:
    disk = Disk()
    together: Together[int] = Together(disk.write)
    together.put(1).cancel()
    await together.put(2)
    assert disk.batches == [[1, 2]]


async def test_after_a_failure_nothing_is_written_any_more() -> None:
    disk = Disk()
    together: Together[int] = Together(disk.write)
    disk.broken = True
    lost = [together.put(1), together.put(2)]
    assert [type(error) for error in await asyncio.gather(*lost, return_exceptions=True)] == [OSError, OSError]
    disk.broken = False
    with pytest.raises(OSError, match="disk full"):
        await together.put(3)
    assert disk.batches == []
