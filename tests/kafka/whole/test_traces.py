"""Recorded traces through Kafka, to the nano-dollar; they are no part of the project. `pytest -m shared` plays them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kafka.bill import bill
from kafka.deployment import Deployment
from kafka.whole.test_send import POLICY, address, sent
from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.simulate.adapters import azure

pytestmark = [pytest.mark.shared, pytest.mark.timeout(590)]
Deploy = Callable[..., Deployment]

ROOT = Path(__file__).parents[3]
TRACES = Path(os.environ.get("SPENDBRAKE_TRACES", ROOT.parent / "shared" / "data"))
FILES = [str(path) for path in sorted((TRACES / "azure_llm_2023").glob("*.csv"))]
OPTIONS = ("--adapter", "azure", "--team", "inference", "--model", "gpt-4o")
CALLS = 28_185


def recorded() -> list[UsageEvent]:
    lines = [azure(Path(path), team="inference", model="gpt-4o", key="trace", provider="azure") for path in FILES]
    return [event for file in lines for _, event in file if isinstance(event, UsageEvent)]


def test_an_hour_of_inference_is_counted_to_the_nano_dollar_by_its_own_clock(deploy: Deploy) -> None:
    deployment = deploy(POLICY, simulation=True)
    deployment.start()
    began = time.monotonic()
    told = deployment.run("send", *FILES, *OPTIONS, "--simulate", "0")
    print(f"{told}\n{time.monotonic() - began:.1f} s")
    assert f"{CALLS:,} events sent" in told
    totals, expected = deployment.totals(), bill(recorded())
    print(totals, expected)
    assert totals == expected
    assert deployment.dead() == []


@pytest.mark.parametrize("way", ["topic", "http"])
def test_the_same_hour_moved_to_now(deploy: Deploy, way: str) -> None:
    deployment = deploy(POLICY, SPENDBRAKE_HTTP__PORT="0")
    deployment.start()
    through = ("--http", address(deployment._start("worker", "api"))) if way == "http" else ()
    print(deployment.run("send", *FILES, *OPTIONS, "--shift-to-now", *through))
    deployment.wait_until_drained()
    totals, events = deployment.totals(), sent(deployment)
    print(totals)
    assert len(events) == CALLS
    assert totals == bill(events)
    assert totals.cost == bill(recorded()).cost, "an hour costs the same in another year"
    assert deployment.dead() == []
