"""One real Kafka broker and one Valkey for the whole run."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kafka.deployment import Deployment
from servers.kafka import KafkaServer
from servers.valkey import Valkey


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path_factory.mktemp("kafka")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with Valkey() as server:
        yield server.url


NUMBERS = count(1)


@pytest.fixture
def deploy(kafka: KafkaServer, redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Make deployments under prefixes of their own; their processes end with the test."""
    made: list[Deployment] = []

    def new(policy: dict[str, Any], *, simulation: bool = False, **settings: str) -> Deployment:
        prefix = f"{'sim-' if simulation else ''}d{next(NUMBERS)}."
        directory = tmp_path / prefix.rstrip(".")
        directory.mkdir()
        made.append(Deployment(kafka, redis_url, prefix, directory, policy, **settings))
        return made[-1]

    yield new
    for deployment in made:
        deployment.close()
