"""Settings read the environment once and name every problem in it."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from spendbrake.streams.secrets import masked_url
from spendbrake.streams.settings import Settings, SettingsError, named_secret, unknown_names

KAFKA = {"SPENDBRAKE_BROKER": "kafka://one:9092,two:9092", "SPENDBRAKE_SECRET": "a-secret-of-some-length"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SPENDBRAKE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    def _load(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Settings.load()

    return _load


def problems(load, **environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**environment)
    return caught.value.problems


def test_nothing_set_is_an_embedded_deployment_on_loopback(load) -> None:
    settings = load()
    assert settings.embedded
    assert settings.n_partitions == 4
    assert settings.log_dir == Path(".spendbrake/log")
    assert settings.http.host == "127.0.0.1"


def test_kafka_is_named_by_url(load) -> None:
    settings = load(**KAFKA)
    assert not settings.embedded
    assert settings.bootstrap_servers == "one:9092,two:9092"
    assert settings.n_partitions == 32


def test_the_embedded_broker_has_no_bootstrap_servers(load) -> None:
    with pytest.raises(ValueError, match="no bootstrap servers"):
        _ = load().bootstrap_servers


def test_the_folder_of_the_embedded_broker_may_be_named(load) -> None:
    assert load(SPENDBRAKE_BROKER="embedded:///var/lib/brake").log_dir == Path("/var/lib/brake")


def test_partitions_set_by_hand_win(load) -> None:
    assert load(**KAFKA, SPENDBRAKE_PARTITIONS="12").n_partitions == 12


def test_an_empty_variable_is_an_absent_one(load) -> None:
    assert load(SPENDBRAKE_REGISTRY="", SPENDBRAKE_POLICY="").registry is None


def test_all_problems_are_told_at_once_by_variable(load) -> None:
    told = problems(
        load,
        SPENDBRAKE_BROKER="zookeeper://one",
        SPENDBRAKE_REDIS="redis://",
        SPENDBRAKE_PREFIX="with space",
        SPENDBRAKE_SECRET="short",
        SPENDBRAKE_HTTP__PORT="99999",
        SPENDBRAKE_BURN__DEDUPE_BLOCKS="100",
        SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S="9",
    )
    assert [line.split(":")[0] for line in told] == [
        "SPENDBRAKE_BROKER",
        "SPENDBRAKE_REDIS",
        "SPENDBRAKE_PREFIX",
        "SPENDBRAKE_SECRET",
        "SPENDBRAKE_HTTP__PORT",
        "SPENDBRAKE_BURN__DEDUPE_BLOCKS",
        "SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S",
    ]
    assert told[0] == "SPENDBRAKE_BROKER: expected a URL with kafka:// or embedded://, got 'zookeeper://one'"
    assert "short" not in told[3].split(":", 1)[1]


@pytest.mark.parametrize("url", ["embedded://folder", "kafka:one:9092", "kafka://"])
def test_a_broker_url_that_means_something_else_is_refused(load, url: str) -> None:
    (told,) = problems(load, SPENDBRAKE_BROKER=url)
    assert told.startswith("SPENDBRAKE_BROKER:")


def test_kafka_without_a_secret_is_refused(load) -> None:
    (told,) = problems(load, SPENDBRAKE_BROKER="kafka://one:9092")
    assert told == "SPENDBRAKE_SECRET: a Kafka deployment needs a secret, the same in all its processes"


def test_a_misspelt_name_inside_a_section_is_refused(load) -> None:
    (told,) = problems(load, SPENDBRAKE_HTTP__PROT="80")
    assert told.startswith("SPENDBRAKE_HTTP__PROT: Extra inputs are not permitted")


@pytest.mark.parametrize("value", ["8080", "nonsense"])
def test_a_section_set_as_a_whole_is_refused_with_the_way_to_do_it(load, value: str) -> None:
    (told,) = problems(load, SPENDBRAKE_HTTP=value)
    assert "SPENDBRAKE_HTTP__PORT" in told


def test_a_misspelt_name_at_the_top_is_listed(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPENDBRAKE_BROKR", "kafka://one")
    monkeypatch.setenv("SPENDBRAKE_WEBHOOK_SECRET", "whsec_x")
    load(**KAFKA, SPENDBRAKE_HTTP__PORT="80")
    assert unknown_names() == ("SPENDBRAKE_BROKR",)


def test_the_first_of_several_secrets_signs_and_none_is_shown(load) -> None:
    settings = load(**KAFKA | {"SPENDBRAKE_SECRET": "new-secret-123456, old-secret-123456"})
    assert settings.signing_secrets() == (b"new-secret-123456", b"old-secret-123456")
    assert "new-secret" not in f"{settings!r}{settings.shown()}"


def test_passwords_in_urls_are_not_shown(load) -> None:
    settings = load(SPENDBRAKE_REDIS="redis://default:hunter2@cache:6379/0")
    assert "hunter2" not in str(settings.shown())
    assert masked_url("redis://cache:6379/0") == "redis://cache:6379/0"


def test_an_embedded_deployment_makes_its_secret_once_and_keeps_it_private(load, tmp_path: Path) -> None:
    settings = load(SPENDBRAKE_DATA_DIR=str(tmp_path / "data"))
    (first,) = settings.signing_secrets()
    assert settings.signing_secrets() == (first,)
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret"]


def test_settings_are_frozen(load) -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.http.port = 1


def test_a_destinations_secret_is_read_by_the_name_the_policy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
    secret = named_secret("SLACK_BOT_TOKEN")
    assert secret is not None
    assert secret.get_secret_value() == "xoxb-1"
    assert named_secret("SPENDBRAKE_NO_SUCH_TOKEN") is None


def test_a_destinations_secret_may_lie_in_the_folder_of_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "pagerduty_routing_key").write_text("key-1\n")
    (tmp_path / "elsewhere").write_text("no secret of ours")
    monkeypatch.delenv("PAGERDUTY_ROUTING_KEY", raising=False)
    monkeypatch.setenv("SPENDBRAKE_SECRETS_DIR", str(folder))
    secret = named_secret("PAGERDUTY_ROUTING_KEY")
    assert secret is not None
    assert secret.get_secret_value() == "key-1"
    assert named_secret("../elsewhere") is None
    monkeypatch.setenv("PAGERDUTY_ROUTING_KEY", "key-2")
    assert (named_secret("PAGERDUTY_ROUTING_KEY") or secret).get_secret_value() == "key-2", "the environment wins"
