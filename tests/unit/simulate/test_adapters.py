"""Traces become events; a bad line is named and the rest goes on."""

import gzip
from pathlib import Path

import pytest

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.simulate.adapters import azure, events_of, jsonl
from spendbrake.streams.simulate.company import Company

OWNER = {"team": "code", "model": "gpt-4o", "key": "key-code-1", "provider": "azure"}
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens\r
2023-11-16 18:17:03.9799600,4808,10\r
2023-11-16 18:17:04,many,8\r
yesterday,110,27\r
2023-11-16 18:17:04.1206440,-5,14\r
2023-11-16 18:17:04.1206440,7433\r
2023-11-16 18:17:05.2500000,7433,14"""


@pytest.fixture
def events() -> list[UsageEvent]:
    return list(Company(calls_per_day=40).events())[:20]


@pytest.mark.parametrize("compress", [False, True])
def test_json_lines_come_back_as_they_were_written(tmp_path: Path, events: list[UsageEvent], compress: bool) -> None:
    text = b"\n".join(map(encode_usage_json, events)) + b"\n"
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(text) if compress else text)
    assert list(jsonl(path)) == list(enumerate(events, 1))


def test_a_bad_line_is_named_and_the_rest_goes_on(tmp_path: Path, events: list[UsageEvent]) -> None:
    good = encode_usage_json(events[0])
    path = tmp_path / "trace.jsonl"
    path.write_bytes(good + b'\n\n{"broken\n[]\n' + good.replace(b'"model"', b'"modell"') + b"\n" + good)
    lines = dict(jsonl(path))
    assert list(lines) == [1, 3, 4, 5, 6]
    assert [bad.reason for bad in lines.values() if isinstance(bad, BadRecord)] == [
        "not_json",
        "not_an_object",
        "missing_field",
    ]
    assert lines[6] == events[0]


def test_a_gzip_cut_off_gives_its_whole_lines_and_then_an_error(tmp_path: Path, events: list[UsageEvent]) -> None:
    packed = gzip.compress(b"\n".join(map(encode_usage_json, events * 200)), mtime=0)
    path = tmp_path / "trace.gz"
    path.write_bytes(packed[: len(packed) // 2])
    lines = jsonl(path)
    assert next(lines) == (1, events[0])
    with pytest.raises(OSError, match=r"trace\.gz: .*ended before"):
        list(lines)


def test_an_azure_trace_gets_its_owner_from_the_arguments(tmp_path: Path) -> None:
    path = tmp_path / "code.csv"
    path.write_text(AZURE, newline="")
    lines = dict(azure(path, **OWNER))
    first = lines[2]
    assert isinstance(first, UsageEvent)
    assert first.time == 1_700_158_623.97996
    assert (first.team, first.model, first.api_key_id, first.provider) == ("code", "gpt-4o", "key-code-1", "azure")
    assert (first.input_tokens, first.output_tokens) == (4_808, 10)
    assert (first.source, first.request_id) == ("code.csv", "2")
    assert isinstance(lines[7], UsageEvent)


def test_bad_rows_of_an_azure_trace_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "code.csv"
    path.write_text(AZURE, newline="")
    bad = {number: (line.reason, line.field) for number, line in azure(path, **OWNER) if isinstance(line, BadRecord)}
    assert bad == {
        3: ("bad_type", "input_tokens"),
        4: ("bad_time", "time"),
        5: ("bad_type", "input_tokens"),
        6: ("bad_type", "output_tokens"),
    }


def test_a_file_that_is_no_azure_trace_says_which_columns_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("TIMESTAMP,tokens\n1,2\n")
    with pytest.raises(BadRecord, match=r"ContextTokens,GeneratedTokens: .*other\.csv"):
        list(azure(path, **OWNER))


def test_an_owner_no_event_may_hold_is_refused_before_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "code.csv"
    path.write_text(AZURE, newline="")
    with pytest.raises(BadRecord, match="team"):
        list(azure(path, **OWNER | {"team": ""}))


def test_events_go_on_and_complaints_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "code.csv"
    path.write_text(AZURE, newline="")
    complaints: list[int] = []
    events = list(events_of(azure(path, **OWNER), lambda number, _: complaints.append(number)))
    assert [event.request_id for event in events] == ["2", "7"]
    assert complaints == [3, 4, 5, 6]
