"""`spendbrake rehome`: a prefix that topics could not have, or whose topics have another clock, is refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spendbrake.streams.cli.main import app


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("", "is the one in use"),
        ("a b/c", "letters, digits, dots, dashes and underscores"),
        ("x" * 101, "100 at most"),
        ("r2-\n", "letters, digits"),
        ("sim-r2-", "have a trace's clock"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(tmp_path: Path, prefix: str, why: str) -> None:
    command = ("rehome", "--prefix", prefix, "--partitions", "8")
    result = CliRunner().invoke(app, command, env={"SPENDBRAKE_DATA_DIR": str(tmp_path / "data")})
    assert (result.exit_code, why in result.output) == (2, True), result.output
