"""What is wrong with a destination is named so that it can be mended; nothing is sent blindly, no secret is shown."""

import base64
import re
from typing import Any

import pytest
from aiohttp import web

from servers.receivers import SlackServer, WebhookServer
from servers.trackers import GitHubServer
from spendbrake.streams.workers.trial.report import passed
from unit.trial.receivers import Trial, served, states

OTHER = f"whsec_{base64.b64encode(b'another secret of another receiver').decode()}"
WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("slack", {}, {"BOT": None}, "the environment variable BOT is not set"),
    ("slack", {}, {"BOT": "xoxb-revoked"}, "invalid_auth: Slack takes the token for none.*read from BOT"),
    ("slack", {"channel": "#paymets-ops"}, {}, "channel_not_found: no channel of this name.*says #paymets-ops"),
    ("slack", {"base_url": "http://127.0.0.1:1/"}, {}, "not reached: .*nothing listens there"),
    ("webhook", {}, {"HOOK": OTHER}, "HTTP 401 .*must know the secret in HOOK"),
    ("webhook", {}, {"HOOK": "whsec_???"}, "HOOK holds no webhook secret"),
    ("webhook", {"url": "http://host.invalid/"}, {}, "not reached: .*no such host: misspelt"),
    ("pagerduty", {}, {"PAGER": "f" * 32}, "Invalid routing key.*PAGER must hold the key of a service"),
    ("pagerduty", {}, {"PAGER": "f" * 31}, "32 letters and digits, and PAGER holds none"),
    ("email", {"to": []}, {}, "no contact with an e-mail address.*--node"),
    ("email", {"tls": "starttls"}, {}, "STARTTLS extension not supported.*`tls: implicit`"),
    ("email", {"tls": "implicit"}, {}, "it speaks no TLS on this port"),
    ("github", {}, {"TICKETS": "token-2"}, "HTTP 401.*TICKETS holds no token that it takes"),
    ("github", {"project": "acme/spent"}, {}, "HTTP 404.*TICKETS sees no acme/spent there"),
    ("jira", {"username": None}, {}, "HTTP 401.*no token that it takes with `username`"),
    ("jira", {"project": "OPSS"}, {}, "HTTP 400: .*'OPSS' does not exist.*TICKETS sees no OPSS there"),
]


@pytest.mark.parametrize(("kind", "changes", "secrets", "said"), WRONG)
async def test_what_is_wrong_is_named_with_what_mends_it(
    kind: str, changes: dict[str, Any], secrets: dict[str, Any], said: str
) -> None:
    with served(kind) as server:
        steps = await Trial(kind, server, changes, secrets).steps()
    (failed,) = [step for step in steps if step.state == "failed"]
    assert re.search(said, failed.said), failed.said
    assert not passed(steps)
    assert "ok" not in [step.state for step in steps if step.name not in ("account", failed.name)]
    for secret in (each for each in secrets.values() if each):
        assert secret not in repr(steps)


async def test_a_webhook_inside_is_refused_and_the_setting_named() -> None:
    with served("webhook") as server:
        (failed, *others) = await Trial("webhook", server, allowed=()).steps()
        assert server.raw == []
    assert "is inside" in failed.said
    assert "SPENDBRAKE_WEBHOOK__ALLOWED" in failed.said
    assert [step.state for step in others] == ["skipped", "skipped"]


async def test_slack_says_which_scopes_are_missing_and_what_for() -> None:
    with SlackServer(scopes={"channels:read"}) as server:
        account, opened, *_ = await Trial("slack", server).steps()
    assert "it cannot post without chat:write; without channels:history (groups:history) what is" in account.said
    assert "missing_scope: the token needs chat:write, and has channels:read (add it to the app" in opened.said
    with SlackServer(scopes={"chat:write"}) as server:
        steps = await Trial("slack", server).steps()
    assert passed(steps), "it is told, though not looked for"
    assert "found there" not in steps[1].said


async def test_a_pause_that_the_receiver_asks_for_is_kept_within_the_time_and_not_beyond() -> None:
    for asked, tries, waited in (("7", 2, [7.0]), ("31", 1, [])):
        with served("slack") as server:
            server.faults, server.retry_after = ["ok", "429"], asked
            trial = Trial("slack", server)
            _, opened, *_ = await trial.steps()
            assert server.calls["chat.postMessage"] == (4 if tries == 2 else 1)
        assert (opened.tries, trial.waited) == (tries, waited)
        assert (opened.state, "2 tries" in opened.said) == (("ok", True) if tries == 2 else ("failed", False))
    assert opened.said == "no success in 30 s: rate limited"


async def test_what_slack_may_have_is_looked_for_and_never_sent_blindly() -> None:
    with served("slack") as server:
        server.faults = ["ok", "drop"]
        _, opened, *_ = await Trial("slack", server).steps()
        firsts = [message for message in server.messages if "Warning:" in message.text]
    assert len(firsts) == 1
    assert opened.said == "no answer; found there"
    with served("slack") as server:
        server.faults, server.scopes = ["ok", "drop"], {"chat:write"}
        _, opened, *others = await Trial("slack", server).steps()
        assert len(server.messages) == 1
    assert opened.said.startswith("it may have arrived")
    assert [step.state for step in others] == ["skipped", "skipped"]


async def test_an_incident_that_may_have_been_opened_is_ended() -> None:
    with served("pagerduty") as server:
        server.faults = ["500", "500", "500"]
        steps = await Trial("pagerduty", server).steps()
    assert list(states(steps)) == [("opened", "failed"), ("worse", "skipped"), ("over", "ok")]
    with served("pagerduty") as server:
        server.faults = ["ok", "500", "500", "500"]
        steps = await Trial("pagerduty", server).steps()
        assert [each.status for each in server.incidents.values()] == ["resolved"]
    assert [state for _, state in states(steps)] == ["ok", "failed", "ok", "ok"]


async def test_a_ticket_that_may_have_been_opened_and_was_not_is_not_waited_for() -> None:
    with served("github") as server:
        server.faults = ["500", "500", "500"]
        trial = Trial("github", server)
        steps = await trial.steps()
    assert [(step.state, step.said) for step in steps[1:]] == [("skipped", "nothing was opened")] * 2
    assert len(trial.waited) == 2, "between the tries of the first news"


async def test_an_answer_that_is_no_list_of_alerts_or_no_slack_is_said_and_ends_no_command() -> None:
    class Other(WebhookServer):
        """Answers everything, and is neither."""

        def routes(self) -> Any:
            return [web.route("*", "/{path:.*}", self._say)]

        async def _say(self, request: web.Request) -> web.Response:
            return web.json_response(["you are", "at the wrong door"])

    with Other("whsec_") as server:
        url = f"http://127.0.0.1:{server.port}"
        first, *_ = await Trial("alertmanager", server, {"url": url}).steps()
        assert (first.state, "could not be looked for" in first.said) == ("ok", True), first
        account, *others = await Trial("slack", server, {"base_url": f"{url}/"}).steps()
    assert (account.state, others) == ("failed", []), account


async def test_a_recipient_that_is_refused_is_no_success() -> None:
    with served("email") as server:
        server.unknown = {"gone@a.example"}
        steps = await Trial("email", server, {"to": ["cfo@a.example", "gone@a.example"]}).steps()
    assert {step.state for step in steps} == {"failed"}
    assert "refused: gone@a.example" in steps[0].said


async def test_a_ticket_that_is_not_found_again_is_no_success() -> None:
    class Blind(GitHubServer):
        def _list(self, query: Any) -> web.Response:
            return web.json_response([])

    with Blind() as server:
        steps = await Trial("github", server).steps()
    assert "the next news would open another ticket" in steps[0].said
    assert steps[0].state == "failed"


async def test_a_secret_that_a_receiver_sends_back_is_masked() -> None:
    class Echo(GitHubServer):
        async def answer(self, request: web.Request) -> web.Response:
            return web.json_response({"message": f"no {request.headers['authorization']}"}, status=403)

    with Echo() as server:
        failed, *_ = await Trial("github", server).steps()
    assert "token-1" not in repr(failed)
    assert "no Bearer **********" in failed.said
