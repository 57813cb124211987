"""send beside its brokers: files merged, bad lines told, an API that is busy or away, options that exclude others."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.cli.main import app
from spendbrake.streams.cli.send.files import Files
from spendbrake.streams.cli.send.http import BATCH, PATIENCE_S, PostError, post
from spendbrake.streams.simulate.adapters import jsonl
from spendbrake.streams.transport.embedded.directory import DirectoryLock

URL = "http://spendbrake.test/api/"


def call(at: float) -> UsageEvent:
    return UsageEvent(request_id=f"r-{at:g}", time=at, api_key_id="k", provider="openai", model="gpt-4o", team="a")


def written(path: Path, *lines: float | bytes) -> Path:
    text = b"\n".join(line if isinstance(line, bytes) else encode_usage_json(call(line)) for line in lines)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


# --- files ---------------------------------------------------------------------------------------


def test_files_are_merged_by_time_and_bad_lines_told_once(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", 1, b"{", 4, 9)
    b = written(tmp_path / "b.jsonl.gz", 2, 3, b"[]", 8)
    told: list[tuple[str, int]] = []
    files = Files([a, b], jsonl)
    found = [
        (event.time, *files.place) for event in files.events(lambda path, line, bad: told.append((path.name, line)))
    ]
    assert found == [(1, a, 1), (2, b, 1), (3, b, 2), (4, a, 3), (8, b, 4), (9, a, 4)]
    assert sorted(told) == [("a.jsonl", 2), ("b.jsonl.gz", 3)]
    assert (files.bad, files.lines(), files.last_at()) == (2, 8, 9)
    assert files.bad == 2, "read twice, counted once"


def test_a_limit_takes_the_first_by_time(tmp_path: Path) -> None:
    files = Files([written(tmp_path / "a", 1, 5), written(tmp_path / "b", 2, 3)], jsonl, limit=3)
    assert [event.time for event in files.events()] == [1, 2, 3]
    assert (files.last_at(), files.lines()) == (3, 3)


# --- HTTP ----------------------------------------------------------------------------------------

Answer = Callable[[httpx.Request], httpx.Response]


class Api:
    """Answers in turn; the last answer holds."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.batches: list[list[dict[str, Any]]] = []
        self.now = 0.0
        self.waits: list[float] = []
        self.told: list[tuple[str, int, str]] = []
        self.done: list[int] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url == "http://spendbrake.test/api/v1/usage"
        assert request.headers["content-type"] == "application/x-ndjson"
        self.batches.append([orjson.loads(line) for line in request.content.splitlines()])
        return self.answers.pop(0)(request) if len(self.answers) > 1 else self.answers[0](request)

    async def post(self, n: int) -> tuple[int, int]:
        placed = ((call(at), Path("f"), at + 1) for at in range(n))
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.handle)) as client:
            return await post(
                placed,
                URL,
                lambda path, line, message: self.told.append((path.name, line, message)),
                self.done.append,
                client=client,
                sleep=self.sleep,
                clock=lambda: self.now,
            )


def takes(request: httpx.Request) -> httpx.Response:
    n = len(request.content.splitlines())
    return httpx.Response(202, json={"accepted": n, "rejected": 0, "errors": []})


def busy(request: httpx.Request) -> httpx.Response:
    return httpx.Response(503, headers={"retry-after": "2"}, json={"error": "busy", "message": "wait"})


def away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def forbids(request: httpx.Request) -> httpx.Response:
    return httpx.Response(404, text="nothing here")


async def test_events_go_in_batches_in_order() -> None:
    api = Api(takes)
    assert await api.post(2 * BATCH + 1) == (2 * BATCH + 1, 0)
    assert [len(batch) for batch in api.batches] == [BATCH, BATCH, 1]
    assert [event["time"] for batch in api.batches for event in batch] == list(range(2 * BATCH + 1))
    assert api.done == [BATCH, 2 * BATCH, 2 * BATCH + 1]


async def test_a_busy_or_absent_api_gets_the_same_batch_again() -> None:
    api = Api(away, busy, takes)
    assert await api.post(3) == (3, 0)
    assert api.batches[0] == api.batches[1] == api.batches[2]
    assert api.waits == [0.2, 2.0], "a back-off, then what the API asked for"


@pytest.mark.parametrize("answer", [away, busy])
async def test_after_a_minute_it_gives_up_loudly(answer: Answer) -> None:
    api = Api(takes, answer)
    with pytest.raises(PostError, match=r"/v1/usage: no answer to a batch for 60 s; the last try: (503|ConnectError)"):
        await api.post(BATCH + 1)
    assert PATIENCE_S - 10 < api.now <= PATIENCE_S
    assert api.done == [BATCH]


async def test_an_answer_that_is_none_of_the_api_ends_it() -> None:
    with pytest.raises(PostError, match="404 nothing here"):
        await Api(forbids).post(3)


async def test_refused_events_are_told_by_file_and_line() -> None:
    error = {"index": 2, "reason": "too_long", "field": "model", "message": "model: too long"}
    api = Api(lambda request: httpx.Response(202, json={"accepted": 4, "rejected": 1, "errors": [error]}))
    assert await api.post(5) == (4, 1)
    assert api.told == [("f", 3, "model: too long")]


# --- the command ---------------------------------------------------------------------------------


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["send", *arguments], env=environment)
    return done.exit_code, " ".join(done.output.split())


def test_what_cannot_go_together_is_refused(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.jsonl", 1))
    embedded = {"SPENDBRAKE_BROKER": "embedded://", "SPENDBRAKE_DATA_DIR": str(tmp_path / "data")}
    assert "without --shift-to-now" in run(file, "--simulate", "0", "--shift-to-now")[1]
    assert "give --team and --model" in run(file, "--adapter", "azure", "--team", "a")[1]
    assert "a usage event names its own" in run(file, "--team", "a")[1]
    code, told = run(file, "--simulate", "60", **embedded)
    assert code == 1
    assert "open to one process only; `spendbrake demo --trace FILE` plays a file there" in told


def test_an_embedded_broker_in_use_says_where_to_post(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.jsonl", 1))
    (tmp_path / "log").mkdir()
    lock = DirectoryLock(tmp_path / "log" / "lock")
    try:
        code, told = run(file, SPENDBRAKE_BROKER=f"embedded://{tmp_path / 'log'}", SPENDBRAKE_DATA_DIR=str(tmp_path))
    finally:
        lock.release()
    assert code == 1
    assert "is locked" in told
    assert "--http http://127.0.0.1:8080" in told
