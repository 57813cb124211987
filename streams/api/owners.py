"""Who can tell about a partition: this process, or the one whose address is in Redis. What is told is the view's."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import httpx
import structlog

from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.streams.api.access.hop import HOP, WINDOW_S, sign
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.workers.partitions.journal import Journal
from spendbrake.streams.workers.view import days_of, team_view, teams_view

LOG = structlog.get_logger("spendbrake.owners")
ANNOUNCE_EVERY_S, ADDRESS_LIFE_S = 5.0, 20.0
TIMEOUT_S = 2.0


class Unserved(LookupError):
    """Nobody can tell about the partition now; the message says why."""


class Addresses(Protocol):
    """Where partitions are served (actions/gateway/addresses.py: AddressBook)."""

    async def publish(self, partitions: Iterable[int], url: str, life_s: float) -> None:
        """Say that `url` serves these partitions for a while."""

    async def find(self, partitions: Iterable[int]) -> Mapping[int, str]:
        """Return the URL of each partition that somebody serves."""


class Local:
    """The partitions in this process's hands."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal

    def partitions(self) -> frozenset[int]:
        """Return the partitions whose state is here and has been stepped."""
        if self._journal is None:
            return frozenset()
        return frozenset(number for number, owned in self._journal.owned.items() if _rules(owned.state) is not None)

    def team(self, partition: int, node: str) -> dict[str, Any] | None:
        """Return the view of a team of one of `partitions()`; None when nothing was counted for it."""
        state, rules = self._state(partition)
        row = state.teams.index.get(node)
        return None if row is None else team_view(state, rules, row)

    def days(self, partition: int, node: str) -> tuple[list[int], int, int, int] | None:
        """Return the whole local days of a team, today, the days left of its month, and its month to date, nano-USD."""
        state, _ = self._state(partition)
        row = state.teams.index.get(node)
        return None if row is None else (*days_of(state, row), int(state.series.month[state.teams.series[row]]))

    def teams(self, partition: int) -> list[dict[str, Any]]:
        """Return a line for each team of one of `partitions()`."""
        return teams_view(*self._state(partition))

    def _state(self, partition: int) -> tuple[PartitionState, Rules]:
        owned = self._journal.owned.get(partition) if self._journal is not None else None
        rules = _rules(owned.state) if owned is not None else None
        if owned is None or rules is None:
            raise Unserved(f"partition {partition} is not in this process")
        return owned.state, rules


class Remote:
    """The partitions in other processes' hands.

    Args:
        secret: Of the deployment; it vouches for what is passed on.
        clock: Wall clock, epoch seconds.
        client: Its time-outs hold for each request passed on; one of its own when None.
    """

    def __init__(
        self,
        addresses: Addresses,
        secret: bytes,
        clock: Callable[[], float],
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._secret, self._clock = secret, clock
        # No proxy of the environment stands between the processes of a deployment.
        self._addresses, self._client = addresses, client or httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def team(self, partition: int, node: str, view: str = "burn") -> httpx.Response:
        """Return the owner's answer about a team, by one of its views.

        Raises:
            Unserved: nobody has the partition, or its owner does not answer.
        """
        url = (await self._find([partition])).get(partition)
        if url is None:
            raise Unserved(f"no process says that it serves partition {partition}")
        return await self._get(f"{url}/v1/teams/{quote(node, safe='')}/{view}", {})

    async def teams(self, partitions: Iterable[int], params: Mapping[str, str]) -> list[Any]:
        """Return the answers of all owners of these partitions that can be found and do answer, parsed."""
        try:
            urls = sorted(set((await self._find(partitions)).values()))
        except Unserved as error:
            LOG.warning("owners are not known", error=str(error))
            return []
        found = await asyncio.gather(*(self._get(f"{url}/v1/teams", params) for url in urls), return_exceptions=True)
        answers = []
        for url, answer in zip(urls, found, strict=True):
            if isinstance(answer, httpx.Response) and answer.status_code == 200:
                answers.append(answer.json())
            elif isinstance(answer, Unserved | httpx.Response):
                LOG.warning("an owner does not tell about its teams", url=url, answer=repr(answer))
            else:
                raise answer
        return answers

    async def _find(self, partitions: Iterable[int]) -> Mapping[int, str]:
        try:
            return await self._addresses.find(partitions)
        except StoreUnavailable as error:
            raise Unserved(f"where partitions are served is not known: {error}") from error

    async def _get(self, url: str, params: Mapping[str, str]) -> httpx.Response:
        try:
            request = self._client.build_request("GET", url, params=dict(params))
            target = request.url.raw_path.decode("ascii")
            request.headers[HOP] = sign(self._secret, "GET", target, self._clock())
            answer = await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unserved(f"{url} does not answer: {error!r}") from error
        if answer.status_code in (401, 403):
            raise Unserved(f"{url} does not know our signature: secrets differ, or clocks by more than {WINDOW_S:g} s")
        if answer.status_code in (421, 503):
            raise Unserved(f"{url} has the partition no more, or not yet")
        return answer


async def announce(
    addresses: Addresses, local: Local, url: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Say again and again that this process serves its partitions; without Redis it goes on trying."""
    while True:
        try:
            await addresses.publish(sorted(local.partitions()), url, ADDRESS_LIFE_S)
        except StoreUnavailable as error:
            LOG.warning("others cannot be told where partitions are served", error=str(error))
        await sleep(ANNOUNCE_EVERY_S)


def _rules(state: Any) -> Rules | None:
    """Return the rules a state was stepped with last; None before its first step."""
    rules = state.numbered_by if state is not None else None
    return rules if isinstance(rules, Rules) else None
