"""One real Valkey for the whole run, empty for every test."""

from collections.abc import Iterator

import pytest
import redis

from servers.valkey import Valkey


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator["redis.Redis"]:
    """A client of an empty server."""
    with valkey_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server of the test's own, to be killed, frozen or emptied."""
    with Valkey() as server:
        yield server
