"""`spendbrake budget request`: what is asked for must be something, or it is refused before it is in any log."""

import pytest
from typer.testing import CliRunner

from spendbrake.streams.cli.main import app


def ask(*options: str) -> tuple[int, str]:
    args = ("budget", "request", "pay", "--by", "ada", "--reason", "launch", *options)
    result = CliRunner().invoke(app, args, env={"COLUMNS": "300"})
    return result.exit_code, result.output


@pytest.mark.parametrize("command", ["request", "approve", "deny", "withdraw"])
def test_a_role_that_is_none_is_refused(command: str) -> None:
    more = ("--usd", "1", "--reason", "why") if command == "request" else ()
    result = CliRunner().invoke(app, ("budget", command, "pay", "--by", "ada", "--role", "king", *more))
    assert (result.exit_code, "--role 'king': one of " in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        ("--usd", "0.0000000004", "4e-10 USD is less than a billionth of a USD"),
        ("--usd", "0.0000000005", "5e-10 USD is less than a billionth of a USD"),
        ("--usd", "1e-999999", "is less than a billionth of a USD"),
        ("--usd", "0", "more than nothing"),
        ("--usd", "nan", "more than nothing"),
        ("--usd", "1e99", "amount out of range"),
        ("--usd", "ten", "not an amount"),
        ("--amount", "-1", "more than nothing"),
        ("--amount", "inf", "more than nothing"),
    ],
)
def test_an_amount_that_is_none_is_refused_by_name_and_value(option: str, text: str, why: str) -> None:
    code, said = ask(option, text)
    assert code == 2
    assert f"{option} {text!r}: " in said
    assert why in said


@pytest.mark.parametrize(
    ("until", "why"),
    [("90d", "more than 62 days ahead"), ("2399-01-01", "more than 62 days ahead"), ("2001-01-01", "has passed")],
)
def test_an_end_that_nobody_could_see_is_refused(until: str, why: str) -> None:
    code, said = ask("--policy", "cap", "--until", until)
    assert (code, why in said) == (2, True), said
