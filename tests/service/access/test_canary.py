"""Secrets go in by environment and file; a canary in each is looked for in whatever comes out when things fail."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from servers.valkey import Valkey
from spendbrake.actions.effects.alertmanager import Server
from spendbrake.actions.effects.email import Post
from spendbrake.actions.effects.pagerduty import Integration
from spendbrake.actions.effects.slack import Workspace
from spendbrake.actions.effects.ticket import Tracker
from spendbrake.actions.effects.webhook import Endpoint
from spendbrake.actions.gateway.addresses import AddressBook
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.store import Store, StoreUnavailable
from spendbrake.streams import logs
from spendbrake.streams.api.access.tokens import mint
from spendbrake.streams.settings import Settings, SettingsError
from spendbrake.streams.workers.deployment import Place

CANARY = "canary-in-the-coal-mine-0123456789abcdef"
GOOD = {
    "SPENDBRAKE_BROKER": f"kafka://user:{CANARY}@127.0.0.1:1",
    "SPENDBRAKE_REDIS": f"redis://default:{CANARY}@127.0.0.1:1/0",
    "SPENDBRAKE_REGISTRY": f"http://user:{CANARY}@127.0.0.1:1",
    "SPENDBRAKE_SECRET": CANARY,
    "SPENDBRAKE_ADMIN_TOKEN": CANARY,
    "SPENDBRAKE_TOKEN": CANARY,
    "SPENDBRAKE_WEBHOOK_SECRET": CANARY,
    "SLACK_BOT_TOKEN": CANARY,
}
EVENT = {"request_id": "r", "time": 1_767_571_200, "api_key_id": "k", "provider": "openai", "model": "gpt-4o"}
BAD = [
    {"SPENDBRAKE_HTTP__PORT": "99999"},
    {"SPENDBRAKE_SECRET": "c0-canary"},
    {"SPENDBRAKE_SECRET": f"{CANARY},c0-canary"},
    {"SPENDBRAKE_ADMIN_TOKEN": "c0-canary"},
    {"SPENDBRAKE_REDIS": f"redis:/u:{CANARY}@cache/0"},
    {"SPENDBRAKE_REDIS": f"http://u:{CANARY}@cache/0"},
    {"SPENDBRAKE_REDIS": f"u:{CANARY}@cache"},
    {"SPENDBRAKE_REDIS": f"redis://u:{CANARY}@[cache/0"},
    {"SPENDBRAKE_REDIS": f"redis://u:{CANARY}/more@cache:6379/0"},
    {"SPENDBRAKE_REDIS": f"redis://:{CANARY}?more@cache:6379/0"},
    {"SPENDBRAKE_REDIS": f"redis://u:{CANARY}#more@cache:6379/0"},
    {"SPENDBRAKE_REDIS": f"redis://cache:{CANARY}"},
    {"SPENDBRAKE_BROKER": f"kafka://a:9092,b:{CANARY}/more@c:9092"},
    {"SPENDBRAKE_REGISTRY": f"http://u:{CANARY}/more@host"},
    {"SPENDBRAKE_BROKER": f"nats://u:{CANARY}@host"},
    {"SPENDBRAKE_BROKER": f"kafka://u:{CANARY}@"},
    {"SPENDBRAKE_REGISTRY": f"ftp://u:{CANARY}@host"},
    {"SPENDBRAKE_HTTP": f'{{"port": "{CANARY}'},
    {"SPENDBRAKE_PREFIX": "a b"},
]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("SPENDBRAKE_")]:
        monkeypatch.delenv(name)

    def put(**values: str) -> None:
        for name, value in (GOOD | values).items():
            monkeypatch.setenv(name, value)

    return put


def silent(text: str) -> None:
    assert CANARY not in text
    assert "c0-canary" not in text


@pytest.mark.parametrize("wrong", BAD, ids=[f"{i}-{next(iter(each))}" for i, each in enumerate(BAD)])
def test_a_wrong_setting_is_told_without_what_is_secret_in_it(environment, wrong: dict[str, str]) -> None:
    environment(**wrong)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert next(iter(wrong)) in str(caught.value)
    silent(str(caught.value))
    silent(repr(caught.value))


def test_settings_show_no_secret_in_any_form(environment) -> None:
    environment()
    settings = Settings.load()
    for text in (
        repr(settings),
        str(settings),
        str(settings.shown()),
        repr(Place("", 4, 1, secrets=(CANARY.encode(),))),
    ):
        silent(text)
    assert settings.signing_secrets() == (CANARY.encode(),)


def test_secrets_may_come_from_files_and_a_wrong_one_is_not_quoted(environment, tmp_path: Path, monkeypatch) -> None:
    environment()
    for name in ("SPENDBRAKE_SECRET", "SPENDBRAKE_ADMIN_TOKEN"):
        monkeypatch.delenv(name)
        (tmp_path / name.lower()).write_text(CANARY + "\n")
    monkeypatch.setenv("SPENDBRAKE_SECRETS_DIR", str(tmp_path))
    settings = Settings.load()
    assert settings.signing_secrets() == (CANARY.encode(),)
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == CANARY
    (tmp_path / "spendbrake_admin_token").write_text("c0-canary")
    with pytest.raises(SettingsError, match="SPENDBRAKE_ADMIN_TOKEN") as caught:
        Settings.load()
    silent(str(caught.value))


def test_logs_mask_what_is_a_token_or_a_password_wherever_it_stands() -> None:
    token, _ = mint("x", ["reader"], by="me", now=0.0)
    out = io.StringIO()
    before = (logging.getLogger().handlers, logging.getLogger().level, structlog.get_config())
    logs.configure("DEBUG", "json", out)
    try:
        log = structlog.get_logger("spendbrake.canary")
        log.info("told", error=f"cannot reach redis://u:{CANARY}@h/0", secret=CANARY, admin_token=CANARY, text=token)
        log.info(f"in the event itself {token} redis://u:{CANARY}@h/0")
        log.info("nested", answer={"authorization": CANARY, "deep": [f"http://u:{CANARY}@h", token]})
        try:
            raise ConnectionError(f"redis://u:{CANARY}@h/0 and {token}")
        except ConnectionError:
            log.exception("failed")
            logging.getLogger("spendbrake.other").exception("failed too: %s", token)
    finally:
        logging.getLogger().handlers, level, config = before
        logging.getLogger().setLevel(level)
        structlog.configure(**config)
    silent(out.getvalue())
    assert token not in out.getvalue()
    assert out.getvalue().count("\n") == 5


def test_a_redis_that_refuses_our_password_is_told_without_it() -> None:
    with Valkey() as server, server.client() as owner:
        owner.config_set("requirepass", "another")
        url = server.url.replace("redis://", f"redis://default:{CANARY}@")
        with pytest.raises(StoreUnavailable) as caught:
            Store.from_url(url).ping()
        silent(str(caught.value) + repr(caught.value.__cause__))
        with Guard(url, on_unavailable="closed", timeout_s=5) as guard:
            silent(repr(guard.check("k", "m")))
            assert guard.check("k", "m").status == 503
        silent(repr(AddressBook.from_url(url, "usage.v1")))
        owner.config_set("requirepass", "")


def test_what_effects_are_given_shows_no_secret() -> None:
    post = Post(host="mail", port=25, tls="none", sender="a@example.com", password=CANARY)
    tracker = Tracker(system="github", url="https://example.com", project="a/b", token=CANARY)
    server = Server(url="https://example.com", token=CANARY)
    silent(repr(post) + repr(tracker) + repr(server) + repr(Integration(routing_key=CANARY)))
    silent(repr(Workspace(token=CANARY)) + repr(Endpoint(url="https://example.com", secrets=(CANARY,))))


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("worker", "burn"),
        ("worker", "act", "--class", "limits"),
        ("token", "create", "x", "--role", "king"),
        ("policy", "apply", "no-policy.yaml"),
        ("send", "events.jsonl", "--http", f"http://u:{CANARY}@127.0.0.1:1x"),
    ],
    ids=" ".join,
)
def test_no_command_that_fails_prints_a_secret(arguments: tuple[str, ...], tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SPENDBRAKE_")}
    redis = {"SPENDBRAKE_BROKER": "embedded://", "SPENDBRAKE_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-c", "from spendbrake.streams.cli.main import main; main()", *arguments]
    (tmp_path / "no-policy.yaml").write_text("nodes: 7\n")
    (tmp_path / "events.jsonl").write_text(json.dumps(EVENT) + "\n")
    done = subprocess.run(
        command, cwd=tmp_path, env=bare | GOOD | redis, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode != 0
    silent(done.stdout + done.stderr)
