"""A whole deployment for gateways to obey: one process of workers, API and Valkey, ended after each test."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spendbrake.streams.api.access.tokens import mint
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.settings import Http, Settings

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    # A mock answer of 30 tokens costs 9 cents.
    "defaults": {"team": {"monthly_budget_usd": "0.50"}},
    "prices": {"unpriced_input_usd_per_mtok": 3000, "unpriced_output_usd_per_mtok": 3000},
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


class Deployment:
    """A deployment in a thread of its own.

    Attributes:
        token: With the roles `ingest` and `check`; `reader` with the role of that name.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._config = Settings(data_dir=folder, http=Http(port=0), republish_s=1, **settings)
        self._ready, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self._failed: BaseException | None = None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with (
            stack(self._config, POLICY) as running,
            whole_api(
                running.config, running.place, running.broker, running.metrics, running.services, running.redis_url
            ) as server,
        ):
            self.running: Stack = running
            self.url, self.redis_url, self.prefix = server.url, running.redis_url, running.redis_prefix
            tokens = running.service("burn").versions.tokens  # type: ignore[union-attr]
            self.token, kept = mint("gateway", ["ingest", "check"], by="test", now=0.0)
            self.reader, other = mint("reader", ["reader"], by="test", now=0.0)
            tokens |= {kept.id: kept, other.id: other}
            self._ready.set()
            await self._ended.wait()

    def __enter__(self) -> "Deployment":
        self._thread.start()
        if not self._ready.wait(90) or self._failed is not None:
            raise RuntimeError("the deployment does not come up") from self._failed
        return self

    def __exit__(self, *about: object) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(60)
        if self._failed is not None:
            raise self._failed


@pytest.fixture
def deployed(tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def make(**settings: Any) -> Iterator[Deployment]:
        with Deployment(tmp_path / "data", **settings) as deployment:
            yield deployment

    return make
