"""Usage to the API: in batches, again with the same ids until it is taken, and never without bound."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from itertools import accumulate, islice, takewhile
from typing import Any

import httpx

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json

LOG = logging.getLogger("spendbrake.litellm")
BATCH, WAITING = 500, 20_000
BATCH_BYTES = 2 << 20
"""The API takes 8 MiB at a time."""
PAUSE_S, LONGEST_PAUSE_S, GATHER_S = 0.2, 30.0, 0.25
LONGEST_ASKED_S = 300.0
"""Of a Retry-After no more is believed."""


class Reporter:
    """Sends usage events to POST /v1/usage: in batches, again with the same ids until taken, and never without bound.

    Args:
        url: Of the API; `/v1/usage` is added.
        token: With the role `ingest`.
        waiting: Most events that wait; past it the oldest go, and are counted.

    Attributes:
        counts: `sent`, `rejected` (no good event), `dropped` (the API was away for too long), `tries` that failed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        waiting: int = WAITING,
        client: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url, self._sleep = f"{url.rstrip('/')}/v1/usage", sleep
        self._headers = {"content-type": "application/x-ndjson"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._client = client or httpx.AsyncClient(timeout=30, trust_env=False)
        self._most = waiting
        self._waiting: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()

    def put(self, event: UsageEvent) -> None:
        """Report an event, in the background."""
        self._waiting.append(encode_usage_json(event))
        if len(self._waiting) > self._most:
            self._waiting.popleft()
            self.counts["dropped"] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="spendbrake-usage")

    async def drained(self) -> None:
        """Return once nothing waits any more."""
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        await self._sleep(GATHER_S)
        pause = PAUSE_S
        while self._waiting:
            batch = self._batch()
            wait_s = await self._post(batch)
            if wait_s is None:
                pause = PAUSE_S
                # Those that were dropped meanwhile were the oldest: of this batch.
                gone = set(batch)
                while self._waiting and self._waiting[0] in gone:
                    self._waiting.popleft()
                continue
            self.counts["tries"] += 1
            await self._sleep(max(pause, wait_s))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _batch(self) -> list[bytes]:
        """Return the oldest that wait, one at the least, and no more than the API takes at a time."""
        sizes = accumulate(len(each) + 1 for each in self._waiting)
        n = sum(1 for _ in takewhile(lambda size: size <= BATCH_BYTES, islice(sizes, BATCH)))
        return list(islice(self._waiting, max(1, n)))

    async def _post(self, batch: list[bytes]) -> float | None:
        """Return None when the API has answered for a batch, else the seconds it asks to wait."""
        try:
            answer = await self._client.post(self._url, content=b"\n".join(batch), headers=self._headers)
        except httpx.HTTPError as error:
            LOG.warning("usage is not reported yet: %s", type(error).__name__)
            return 0.0
        told = _told(answer)
        if told is not None:
            taken = {"sent": told.get("accepted", 0), "rejected": told.get("rejected", len(batch))}
            self.counts.update({what: n for what, n in taken.items() if n})
            for wrong in told.get("errors", ())[:3]:
                LOG.error("usage was refused: %s", wrong.get("message"))
            return None
        LOG.warning("usage is not reported yet: HTTP %s", answer.status_code)
        after = answer.headers.get("retry-after", "")
        return min(float(after), LONGEST_ASKED_S) if after.isascii() and after.isdigit() else 0.0


def _told(answer: httpx.Response) -> dict[str, Any] | None:
    """Return what the API says of a batch; None where it has not taken it, or something else has answered."""
    if answer.status_code not in (202, 400):
        return None
    try:
        told = answer.json()
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
