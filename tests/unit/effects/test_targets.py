"""Where a webhook may go: names that resolve inside, change their mind, or hide an address in another."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import time as wall_clock

import httpx
import pytest

from servers.certificates import contexts
from servers.receivers import WebhookServer
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.targets import Guarded, Inside, is_inside
from spendbrake.actions.effects.webhook import Endpoint, Webhook
from unit.effects.cases import LOOPBACK, SECRET, alert


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with WebhookServer(SECRET) as server:
        yield server


class Names:
    """A name server: answers of one lookup after the other; the last stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise OSError("no such name")
        return found


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::ffff:7f00:1",
    ],
)  # fmt: skip
def test_what_is_inside_is_known(address: str) -> None:
    assert is_inside(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_what_is_outside_is_known(address: str) -> None:
    assert not is_inside(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "0x7f.1"])
async def test_a_target_inside_is_given_up_unless_a_setting_allows_it(server: WebhookServer, host: str) -> None:
    effect = Webhook(
        {"automation": Endpoint(url=f"http://{host}:{server.port}/hook", secrets=(SECRET,))}, clock=wall_clock
    )
    with pytest.raises(GiveUp, match="is inside"):
        await effect.carry_out(alert("webhook"))
    assert server.seen == {}
    await effect.aclose()


async def test_a_name_with_one_address_inside_is_refused_whole(server: WebhookServer) -> None:
    names = Names(["93.184.216.34", "127.0.0.1"])
    with pytest.raises(Inside, match=r"hooks\.example\.com is at 127\.0\.0\.1"):
        await _post(names, server)
    assert names.asked == [("hooks.example.com", server.port)]


async def test_the_connection_goes_to_the_address_that_was_checked(server: WebhookServer) -> None:
    """The name would lead elsewhere at a second lookup: there is none."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    await _post(names, server, allowed=LOOPBACK)
    assert (server.seen.total(), len(names.asked)) == (1, 1)
    with pytest.raises(Inside, match=r"10\.0\.0\.1"):
        await _post(names, server, allowed=LOOPBACK)


async def test_an_address_that_takes_no_connection_is_passed_over(server: WebhookServer) -> None:
    await _post(Names(["127.0.0.2", "127.0.0.1"]), server, allowed=LOOPBACK)
    assert server.seen.total() == 1
    with pytest.raises(Retry, match="not reached"):
        await _post(Names(["127.0.0.2"]), server, allowed=LOOPBACK)
    with pytest.raises(Retry, match="not reached"):
        await _post(Names([]), server, allowed=LOOPBACK)


async def test_tls_asks_for_the_certificate_of_the_name_not_of_the_address(tmp_path: Path) -> None:
    server_tls, client_tls = contexts(tmp_path, "hooks.example.com")
    server = WebhookServer(SECRET)
    server.tls = server_tls
    with server:
        for host, answered in (("hooks.example.com", True), ("other.example.com", False)):
            inner = httpx.AsyncHTTPTransport(verify=client_tls, trust_env=False)
            async with httpx.AsyncClient(
                transport=Guarded(LOOPBACK, resolve=Names(["127.0.0.1"]), inner=inner)
            ) as http:
                url = f"https://{host}:{server.port}/hook"
                if answered:
                    assert (await http.post(url, content=b"{}")).status_code == 401
                else:
                    with pytest.raises(httpx.ConnectError, match="certificate"):
                        await http.post(url, content=b"{}")


async def _post(names: Names, server: WebhookServer, **options: tuple) -> None:
    place = Endpoint(url=f"http://hooks.example.com:{server.port}/hook", secrets=(SECRET,))
    effect = Webhook({"automation": place}, clock=wall_clock, resolve=names, **options)
    try:
        await effect.carry_out(replace(alert("webhook")))
    finally:
        await effect.aclose()
