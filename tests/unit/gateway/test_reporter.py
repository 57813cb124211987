"""How usage is reported: every event until it is taken, the same bytes again, and never without bound."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from spendbrake.actions.gateway.litellm import Reporter
from spendbrake.actions.gateway.litellm.reporter import BATCH
from spendbrake.schemas.usage import UsageEvent


class Api:
    """Answers with what it was told to, then takes everything."""

    def __init__(self, *answers: int | Exception, retry_after: str = "") -> None:
        self.answers, self.bodies, self.naps = list(answers), [], []
        self.headers: list[httpx.Headers] = []
        self._retry_after = retry_after

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append([json.loads(line) for line in request.content.splitlines()])
        self.headers.append(request.headers)
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, Exception):
            raise answer
        told = {"accepted": len(self.bodies[-1]), "rejected": 0, "errors": []}
        if answer == 400:
            told = {"accepted": 0, "rejected": len(self.bodies[-1]), "errors": [{"message": "no"}]}
        return httpx.Response(
            answer, json=told, headers={"retry-after": self._retry_after.encode("latin-1")} if answer == 503 else {}
        )

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)

    def reporter(self, **more: Any) -> Reporter:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Reporter("http://api", "sb_token", client=client, sleep=self.sleep, **more)


def event(i: int) -> UsageEvent:
    return UsageEvent(request_id=f"r{i}", time=1.0, api_key_id="k", provider="openai", model="m")


def ids(body: list[dict[str, Any]]) -> list[str]:
    return [each["request_id"] for each in body]


async def test_events_go_in_batches_with_the_token() -> None:
    api = Api()
    reporter = api.reporter()
    for i in range(BATCH + 3):
        reporter.put(event(i))
    await reporter.drained()
    assert [len(body) for body in api.bodies] == [BATCH, 3]
    assert api.headers[0]["authorization"] == "Bearer sb_token"
    assert reporter.counts == {"sent": BATCH + 3}
    reporter.put(event(-1))
    await reporter.drained()
    assert ids(api.bodies[-1]) == ["r-1"]


@pytest.mark.parametrize("trouble", [503, 429, 401, 500, httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
async def test_what_was_not_taken_is_sent_again_with_the_same_ids(trouble: Any) -> None:
    api = Api(trouble, trouble, retry_after="7")
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    assert [ids(body) for body in api.bodies] == [["r1"]] * 3
    assert reporter.counts == {"sent": 1, "tries": 2}
    assert api.naps[1:] == ([7.0, 7.0] if trouble == 503 else [0.2, 0.4])


async def test_what_cannot_be_taken_is_counted_and_does_not_hold_up_the_rest() -> None:
    api = Api(400)
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    reporter.put(event(2))
    await reporter.drained()
    assert reporter.counts == {"rejected": 1, "sent": 1}


async def test_a_batch_is_no_larger_than_the_api_takes() -> None:
    api = Api()
    reporter = api.reporter()
    for i in range(5):
        reporter.put(replace(event(i), labels={"note": "x" * 900_000}))
    await reporter.drained()
    assert [ids(body) for body in api.bodies] == [["r0", "r1"], ["r2", "r3"], ["r4"]]


@pytest.mark.parametrize("answer", [httpx.Response(400, text="<html>"), httpx.Response(202, json=["no"])])
async def test_what_somebody_else_answers_is_no_word_of_the_api(answer: httpx.Response) -> None:
    api, answers = Api(), [answer]
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda r: answers.pop() if answers else api(r)))
    reporter = Reporter("http://api", client=client, sleep=api.sleep)
    reporter.put(event(1))
    await reporter.drained()
    assert reporter.counts == {"sent": 1, "tries": 1}


@pytest.mark.parametrize(("asked", "waited"), [("9" * 400, 300.0), ("\xb2", 0.2), ("soon", 0.2)])
async def test_a_retry_after_that_cannot_be_meant_is_not_waited_for(asked: str, waited: float) -> None:
    api = Api(503, retry_after=asked)
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    assert api.naps[1:] == [waited]


async def test_while_the_api_is_away_the_oldest_go_and_are_counted() -> None:
    api = Api(httpx.ConnectError("refused"))
    reporter = api.reporter(waiting=3)
    for i in range(5):
        reporter.put(event(i))
    await reporter.drained()
    assert reporter.counts["dropped"] == 2
    assert ids(api.bodies[-1]) == ["r2", "r3", "r4"]
