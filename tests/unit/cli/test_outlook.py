"""Where the commands ask that need a running deployment."""

import pytest

from spendbrake.streams.cli.outlook import here
from spendbrake.streams.settings import Settings


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        (None, None, "http://127.0.0.1:8080"),
        ("127.0.0.1", "18931", "http://127.0.0.1:18931"),
        ("0.0.0.0", None, "http://127.0.0.1:8080"),
        ("::", None, "http://[::1]:8080"),
        ("10.1.2.3", None, "http://10.1.2.3:8080"),
    ],
)
def test_they_ask_the_api_of_this_machines_settings(
    monkeypatch: pytest.MonkeyPatch, host: str | None, port: str | None, url: str
) -> None:
    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            monkeypatch.setenv(f"SPENDBRAKE_HTTP__{name}", value)
    assert here(Settings.load()) == url
