"""Logs come out in one form, and secrets stay in."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from spendbrake.streams.logs import configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, logging.getLogger("spendbrake").level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("spendbrake").setLevel(ours)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_and_its_fields_are_one_json_line() -> None:
    stream = io.StringIO()
    configure("INFO", "json", stream)
    structlog.get_logger("spendbrake.streams.cli").info("policy_applied", version=3)
    (line,) = lines(stream)
    assert (line["event"], line["version"], line["level"]) == ("policy_applied", 3, "info")
    assert line["logger"] == "spendbrake.streams.cli"
    assert str(line["timestamp"]).endswith("Z")


def test_the_level_holds_for_ours_and_libraries_speak_from_warning_on() -> None:
    stream = io.StringIO()
    configure("DEBUG", "json", stream)
    structlog.get_logger("spendbrake.x").debug("ours")
    logging.getLogger("aiokafka").info("theirs")
    logging.getLogger("aiokafka").warning("their %s", "warning")
    assert [line["event"] for line in lines(stream)] == ["ours", "their warning"]


def test_secrets_are_masked_by_name_type_and_place_in_a_url() -> None:
    stream = io.StringIO()
    configure("INFO", "json", stream)
    logger = structlog.get_logger("spendbrake.x")
    logger.info("up", token="hunter2", webhook_secret="hunter2", key=SecretStr("hunter2"), url="redis://a:hunter2@b")
    logging.getLogger("spendbrake.y").warning("down", extra={"password": "hunter2", "input_tokens": 5})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[1]["input_tokens"] == 5


def test_a_password_in_a_traceback_is_masked() -> None:
    stream = io.StringIO()
    configure("INFO", "json", stream)
    try:
        raise ConnectionError("cannot reach redis://a:hunter2@b:6379")
    except ConnectionError:
        structlog.get_logger("spendbrake.x").exception("redis_down")
    (line,) = lines(stream)
    assert "ConnectionError" in str(line["exception"])
    assert "hunter2" not in stream.getvalue()


def test_the_console_form_names_event_and_fields() -> None:
    stream = io.StringIO()
    configure("INFO", "console", stream)
    structlog.get_logger("spendbrake.x").info("policy_applied", version=3)
    assert "policy_applied" in stream.getvalue()
    assert "version=3" in stream.getvalue()


def test_a_level_above_warning_holds_for_libraries_too() -> None:
    stream = io.StringIO()
    configure("ERROR", "json", stream)
    logging.getLogger("a.library").warning("late by a little")
    logging.getLogger("a.library").error("lost")
    assert [line["event"] for line in lines(stream)] == ["lost"]
