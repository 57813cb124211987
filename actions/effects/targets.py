"""Where a webhook may go: never to addresses inside, unless a setting allows them, and only to those that were checked.

A name is resolved here, all its addresses are judged, and the connection is made to a judged address: a name that
resolves otherwise a moment later (DNS rebinding) leads nowhere else. TLS still asks for the certificate of the name.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpx

from spendbrake.actions.effects.base import GiveUp

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host and port, as text.

Raises:
    OSError: there are none, or it cannot be told.
"""
NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""Networks whose addresses are IPv4 ones in disguise (RFC 6052, RFC 8215)."""


class Inside(GiveUp):
    """The target is, or may be, inside: private, loopback, link-local (metadata services), multicast or reserved."""


class Guarded(httpx.AsyncBaseTransport):
    """Connects to addresses that are outside or allowed, and to no other.

    Args:
        allowed: Networks inside that may be reached all the same.
        resolve: How names are looked up.
        inner: Makes the connections, by address.
    """

    def __init__(
        self,
        allowed: Iterable[Network] = (),
        *,
        resolve: Resolve | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve or _resolve
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first judged address that takes the connection.

        Raises:
            Inside: one of the host's addresses may not be reached.
            httpx.ConnectError: the host cannot be found, or none of its addresses takes the connection.
        """
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        addresses = await self._judged(host, port)
        for left, address in enumerate(addresses, 1 - len(addresses)):
            try:
                return await self._inner.handle_async_request(_readdressed(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if left == 0:
                    raise
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _judged(self, host: str, port: int) -> list[Address]:
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in await self._resolve(host, port)]
        except OSError as error:
            raise httpx.ConnectError(f"{host}: not found") from error
        for address in found:
            if is_inside(address) and not any(address in network for network in self._allowed):
                raise Inside(
                    f"{host} is at {address}, which is inside: allow its network by setting, or choose another"
                )
        if not found:
            raise httpx.ConnectError(f"{host}: has no address")
        return found


def is_inside(address: Address) -> bool:
    """Say whether an address is not one of the public Internet; IPv4 in IPv6 is judged as what it stands for.

    Examples:
        >>> [is_inside(ipaddress.ip_address(text)) for text in ("169.254.169.254", "::ffff:10.0.0.1", "93.184.216.34")]
        [True, True, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        within = _ipv4_in(address)
        if within is not None:
            return is_inside(within)
    return not address.is_global or address.is_multicast


def _ipv4_in(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _readdressed(request: httpx.Request, address: Address) -> httpx.Request:
    """Return the request as it goes to an address; its Host header and the name TLS asks for stay."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]
