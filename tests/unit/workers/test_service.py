"""What makes a start of a process its own, and how it ends."""

import asyncio
import contextlib

import pytest
from faust.exceptions import NotReady
from structlog.testing import capture_logs

from spendbrake import __version__
from spendbrake.detectors import panel
from spendbrake.streams.transport.store import split_key
from spendbrake.streams.workers.partitions.pace import every
from spendbrake.streams.workers.service import Service, _writer


def test_no_two_starts_write_under_one_name() -> None:
    names = {_writer() for _ in range(100)}
    assert len(names) == 100
    assert {split_key(f"head|a@{name}".encode()) for name in names} == {("head|a", name) for name in names}


class App:
    """What repeated work needs of an app."""

    should_stop = rebalancing = False

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.mark.parametrize("stops", [True, False])
async def test_work_that_fails_because_the_app_stops_is_no_error_and_any_other_ends_the_process(stops: bool) -> None:
    app = App()

    async def work() -> None:
        app.should_stop = stops
        raise NotReady("the producer is gone")

    loop = every(app, 1.0, work)
    with contextlib.nullcontext() if stops else pytest.raises(NotReady):
        await loop()


class Started:
    """What running needs of an app that neither stops nor crashes."""

    crashed = False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait_until_stopped(self) -> None:
        await asyncio.Event().wait()


async def test_a_worker_says_as_it_starts_which_build_it_runs() -> None:
    service = Service("burn", Started(), worker=None, topic="usage.v1")
    service.stop()
    with capture_logs() as told:
        await service.run()
    build = {"version": __version__, "compiled": not panel.__file__.endswith(".py")}
    assert told == [{"event": "worker starts", "log_level": "info", "worker": "burn"} | build]
