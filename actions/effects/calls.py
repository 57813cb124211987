"""HTTP calls of effects: a time-out for the whole of a call, and what each answer means for the next try."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.messages.refusals import cause_of

AGAIN = frozenset({408, 425, 429})
"""4xx codes that say `later`; all others say `never`."""
LIMITED_S = 60.0
"""Least pause after a 403 that is a rate limit and names none (docs.github.com/rest, rate limits)."""
MAX_ANSWER = 1_000_000
"""Bytes of an answer that are read; what tells more than that is not the API we know."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx: its status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            GiveUp: it is none: whoever answers is not the API that is configured.
        """
        try:
            return httpx.Response(self.status, content=self.body).json()
        except ValueError as error:
            raise GiveUp(f"HTTP {self.status}, but no JSON: {self.body[:80]!r}") from error


class Caller:
    """Calls one receiver. Redirects are not followed, and the environment's proxies not consulted.

    Args:
        clock: Wall clock, epoch seconds UTC, for `Retry-After` as a date.
        timeout_s: For a whole try, connecting included.
        headers: Of every call.
        transport: Where connections come from; httpx's own when None.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock, self._timeout_s = clock, timeout_s
        self._client = httpx.AsyncClient(
            timeout=timeout_s, follow_redirects=False, trust_env=False, headers=headers, auth=auth, transport=transport
        )

    async def call(self, method: str, url: str, *, read: bool = True, told: bool = False, **request: Any) -> Answer:
        """Make one call and return its 2xx.

        Args:
            read: Whether the body of the answer is wanted.
            told: Whether the receiver's own words for a refusal go into the error; never where they may be anybody's.

        Raises:
            Retry: no connection, a time-out, 408, 425, 429, 5xx, or a 403 that is a rate limit (GitHub); the pause that
                is asked for is passed on.
            GiveUp: any other answer, or no URL to call.
        """
        status, headers, body = await self._answer(method, url, read, request)
        if 200 <= status < 300:
            return Answer(status, headers, body)
        words = f": {body[:300].decode(errors='replace')}" if told and body else ""
        if status >= 500 or status in AGAIN or _limited(status, headers, body if told else b""):
            after_s = _pause_s(status, headers, self._clock())
            raise Retry(f"HTTP {status}{words}", after_s=after_s, maybe_done=status >= 500)
        raise GiveUp(f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else words))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _answer(
        self, method: str, url: str, read: bool, request: Mapping[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, **request) as answer,
            ):
                return answer.status_code, answer.headers, await _body(answer) if read else b""
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise GiveUp(f"not a URL to call: {type(error).__name__}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Retry(f"not reached: {cause_of(error)}") from error
        except (TimeoutError, httpx.TransportError) as error:
            raise Retry(f"no answer: {cause_of(error)}", maybe_done=True) from error


async def _body(answer: httpx.Response) -> bytes:
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            break
    return body[:MAX_ANSWER]


def _limited(status: int, headers: Mapping[str, str], words: bytes) -> bool:
    """Say whether a 403 says `later`: GitHub's are rate limits as well as refusals."""
    told = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or b"rate limit" in words.lower()
    return status == 403 and told


def _pause_s(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait: until its limit begins anew where it names no pause."""
    after_s, reset = retry_after_s(headers.get("retry-after"), now), headers.get("x-ratelimit-reset", "")
    if after_s is None and headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        return max(0.0, float(reset) - now)
    return LIMITED_S if after_s is None and status == 403 else after_s


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return a Retry-After header in seconds from now: a number or an HTTP date; None when it is neither.

    Examples:
        >>> retry_after_s("120", 0.0), retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), retry_after_s("soon", 0.0)
        (120.0, 10.0, None)
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None
