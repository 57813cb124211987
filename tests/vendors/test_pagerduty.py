"""Our PagerDuty events, and our double's answers, against PagerDuty's own clients for Go, TypeScript and Python."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from servers.certificates import contexts
from servers.pagerduty import PagerDutyServer
from servers.venvs import environment
from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.pagerduty import Integration, PagerDuty
from spendbrake.schemas.action import Action
from spendbrake.streams.workers.trial.report import passed
from unit.trial.receivers import Trial
from vendors.artefacts import HERE, run
from vendors.kinds import kinds
from vendors.typescript import mistakes

pytestmark = [pytest.mark.vendors, pytest.mark.timeout(600)]
KEY = "0123456789abcdef0123456789abcdef"
CLIENT = "pagerduty==7.2.0"
SENT = "Omit<EventPayloadV2, 'payload'> & Partial<Pick<EventPayloadV2, 'payload'>> & {client?: 'spendbrake'}"
"""The type is for triggers, and does not know of `client`, which PagerDuty's client for Go does."""


class Kept(PagerDutyServer):
    """Keeps every exchange."""

    def __init__(self, *keys: str) -> None:
        super().__init__(*keys, clock=time.time)
        self.exchanges: list[dict[str, Any]] = []

    def _take(self, event: Any) -> web.Response:
        answer = super()._take(event)
        self.exchanges.append({"event": event, "answer": json.loads(answer.text or "")})
        return answer


@pytest.fixture
def server() -> Iterator[Kept]:
    with Kept(KEY) as server:
        yield server


def send(server: PagerDutyServer, news: Sequence[Action], key: str = KEY) -> None:
    async def run() -> None:
        place = Integration(routing_key=key, base_url=server.base_url)
        effect = PagerDuty({"pager": place}, clock=time.time, timer=time.monotonic)
        try:
            for each in news:
                await effect.carry_out(each)
        finally:
            await effect.aclose()

    asyncio.run(run())


def strictly(folder: Path, exchanges: Sequence[Any]) -> list[str]:
    """Return what is unknown to, or lost in, the types of PagerDuty's client for Go."""
    program = folder / "strict"
    run("go", "build", "-o", str(program), ".", cwd=HERE / "pagerduty")
    lines = "\n".join(json.dumps(each) for each in exchanges)
    done = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def typed(exchanges: Sequence[Any]) -> dict[str, tuple[str, Any]]:
    return {f"event {n}": (SENT, each["event"]) for n, each in enumerate(exchanges)}


IMPORTS = {"@pagerduty/pdjs/build/src/events": "EventPayloadV2"}


def test_every_kind_of_news_and_every_answer_of_our_double_is_of_its_clients_types(
    server: Kept, tmp_path: Path
) -> None:
    for news in kinds("pagerduty").values():
        send(server, news)
    with pytest.raises(GiveUp, match="Invalid routing key"):
        send(server, kinds("pagerduty")["block"], key="f" * 32)
    assert {each["event"]["event_action"] for each in server.exchanges} == {"trigger", "acknowledge", "resolve"}
    assert strictly(tmp_path, server.exchanges) == []
    assert mistakes(tmp_path, IMPORTS, typed(server.exchanges)) == {}


def test_a_test_of_the_destination_is_of_its_clients_types(server: Kept, tmp_path: Path) -> None:
    assert passed(asyncio.run(Trial("pagerduty", server).steps()))
    told = [each["event"]["event_action"] for each in server.exchanges]
    assert told == ["trigger", "trigger", "acknowledge", "resolve"]
    assert strictly(tmp_path, server.exchanges) == []
    assert mistakes(tmp_path, IMPORTS, typed(server.exchanges)) == {}


def test_its_own_client_sends_what_we_send_and_takes_our_doubles_answers(server: Kept, tmp_path: Path) -> None:
    for name in ("a tier and its end", "a detector, taken on and over", "markup"):
        send(server, kinds("pagerduty")[name])
    ours = [each["event"] for each in server.exchanges]
    theirs_go_to = Kept(KEY)
    theirs_go_to.tls, _ = contexts(tmp_path, "localhost")
    with theirs_go_to:
        command = [str(environment("pagerduty", CLIENT) / "python"), str(HERE / "pagerduty" / "client.py")]
        done = subprocess.run(
            [*command, f"https://localhost:{theirs_go_to.port}"],
            input=json.dumps(ours),
            env={"SSL_CERT_FILE": str(tmp_path / "localhost.pem")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [each["dedup_key"] for each in ours]
    theirs = [each["event"] for each in theirs_go_to.exchanges]
    assert theirs == [{name: value for name, value in each.items() if name != "client"} for each in ours]


def test_what_is_none_of_its_types_is_found(tmp_path: Path) -> None:
    payload = {"summary": "s", "source": "s", "severity": "critical"}
    event = {"routing_key": KEY, "event_action": "trigger", "dedup_key": "k", "payload": payload}
    answer = {"status": "success", "message": "Event processed", "dedup_key": "k"}
    wrong = [
        {"event": {**event, "client": 1}, "answer": answer},
        {"event": {**event, "dedup": "k"}, "answer": answer},
        {"event": {**event, "payload": {**payload, "details": {}}}, "answer": answer},
        {"event": event, "answer": {**answer, "incident": "k"}},
    ]
    told = strictly(tmp_path, [{"event": event, "answer": answer}, *wrong])
    assert [each.split(":")[0] for each in told] == ["event 1", "event 2", "event 3", "answer 4"]
    severe = [{"event": {**event, "payload": {**payload, "severity": word}}} for word in ("warning", "high")]
    started = [{"event": {**event, "event_action": word}} for word in ("resolve", "close")]
    assert set(mistakes(tmp_path, IMPORTS, typed([*severe, *started]))) == {"event 1", "event 3"}
