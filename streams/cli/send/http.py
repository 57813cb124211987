"""Events to a deployment's API: POST /v1/usage in batches of NDJSON, again and again while it is busy."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.secrets import masked_url

if TYPE_CHECKING:
    from spendbrake.schemas.usage import UsageEvent

Placed = tuple["UsageEvent", Path, int]
BATCH = 1_000
BATCH_BYTES = 2 << 20
TYPE = "application/x-ndjson"
PATIENCE_S = 60.0
"""Seconds for which a batch is tried again."""
LONGEST_PAUSE_S = 5.0
BUSY = (429, 502, 503, 504)


class PostError(ConnectionError):
    """The API does not take events."""


Told = Callable[[Path, int, Any], None]


async def post(
    events: Iterable[Placed],
    url: str,
    told: Told,
    sent: Callable[[int], None],
    *,
    token: str | None = None,
    client: httpx.AsyncClient | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, int]:
    """Post events; return how many were accepted and how many refused, once all were answered for.

    Args:
        url: Of the deployment; `/v1/usage` is added.
        token: API token with the role `ingest`.
        told: Called with the file, the line and the complaint of each event that was refused.
        sent: Called with the number of events that were answered for.

    Raises:
        PostError: the API answers otherwise than it may, or is busy or away for a minute.
    """
    accepted = refused = 0
    own = client or httpx.AsyncClient(timeout=30)
    if token is not None:
        own.headers["authorization"] = f"Bearer {token}"
    poster = _Poster(own, f"{url.rstrip('/')}/v1/usage", sleep, clock)
    try:
        for batch, body in _batches(events):
            answer = await poster.post(body)
            accepted += answer["accepted"]
            refused += answer["rejected"]
            for error in answer["errors"]:
                _, path, line = batch[error["index"]]
                told(path, line, error["message"])
            sent(accepted + refused)
    finally:
        if client is None:
            await own.aclose()
    return accepted, refused


def _batches(events: Iterable[Placed]) -> Iterator[tuple[list[Placed], bytes]]:
    held: list[Placed] = []
    lines: list[bytes] = []
    size = 0
    for placed in events:
        line = encode_usage_json(placed[0])
        if held and (len(held) == BATCH or size + len(line) > BATCH_BYTES):
            yield held, b"\n".join(lines)
            held, lines, size = [], [], 0
        held.append(placed)
        lines.append(line)
        size += len(line) + 1
    if held:
        yield held, b"\n".join(lines)


class _Poster:
    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._client, self._url, self._sleep, self._clock = client, url, sleep, clock

    async def post(self, body: bytes) -> dict[str, Any]:
        """Return the API's answer to a batch."""
        began, pause = self._clock(), 0.2
        while True:
            try:
                answer = await self._client.post(self._url, content=body, headers={"content-type": TYPE})
            except httpx.TransportError as error:
                why, wait = f"{type(error).__name__}: {error}", pause
            except httpx.InvalidURL as error:
                raise PostError(f"{masked_url(self._url)}: {error}") from None
            else:
                if answer.status_code not in BUSY:
                    return self._taken(answer)
                why, wait = f"{answer.status_code} {_said(answer)}", max(pause, _retry_after(answer))
            if self._clock() + wait - began > PATIENCE_S:
                raise PostError(
                    f"{masked_url(self._url)}: no answer to a batch for {PATIENCE_S:g} s; the last try: {why}"
                )
            await self._sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _taken(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            found = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or not {"accepted", "rejected", "errors"} <= found.keys():
            raise PostError(f"{masked_url(self._url)}: {answer.status_code} {_said(answer)}")
        return found


def _said(answer: httpx.Response) -> str:
    return answer.text[:200].replace("\n", " ")


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
