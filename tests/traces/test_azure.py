"""The real Azure LLM inference traces of 2023, read whole. They are not part of the project."""

import os
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.simulate.adapters import azure

pytestmark = pytest.mark.shared

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("SPENDBRAKE_TRACES", ROOT.parent / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "rows", "tokens_in", "tokens_out"), [("code", 8_819, 1_469, 13), ("conv", 19_366, 1_020, 129)]
)
def test_every_row_is_an_event_in_time_order(name: str, rows: int, tokens_in: int, tokens_out: int) -> None:
    path = TRACES / "azure_llm_2023" / f"AzureLLMInferenceTrace_{name}.csv"
    lines = list(azure(path, team=name, model="gpt-4o", key=f"key-{name}", provider="azure"))
    events = [event for _, event in lines if isinstance(event, UsageEvent)]
    assert len(lines) == len(events) == rows
    assert all(earlier.time <= later.time for earlier, later in pairwise(events))
    assert 55 * 60 < events[-1].time - events[0].time < 60 * 60
    assert median(event.input_tokens for event in events) == tokens_in
    assert median(event.output_tokens for event in events) == tokens_out
