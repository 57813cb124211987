"""The plan of topics: names, partitions and settings of a deployment and of a simulation."""

from spendbrake.schemas.topics import TOPICS
from spendbrake.streams.transport.admin import CHANGELOG_CONFIG, plan


def by_name(**options: object) -> dict[str, object]:
    plans = plan("live.", 8, usage_retention_s=100.0, changelogs=["live.burn-state-changelog"], **options)  # type: ignore[arg-type]
    return {wanted.name: (wanted.partitions, dict(wanted.config)) for wanted in plans}


def test_every_topic_and_changelog_is_in_the_plan() -> None:
    assert set(by_name()) == {f"live.{topic.name}" for topic in TOPICS} | {"live.burn-state-changelog"}


def test_logs_keep_the_brokers_clock_and_their_retention() -> None:
    found = by_name()
    log = {"cleanup.policy": "delete"}
    assert found["live.usage.v1"] == (
        8, {**log, "message.timestamp.type": "LogAppendTime", "retention.ms": "100000"},
    )  # fmt: skip
    assert found["live.actions.v1"] == (
        8, {**log, "message.timestamp.type": "CreateTime", "retention.ms": str(30 * 86_400_000)},
    )  # fmt: skip


def test_control_is_one_compacted_partition_without_end() -> None:
    assert by_name()["live.control.v1"] == (
        1, {"cleanup.policy": "compact", "message.timestamp.type": "CreateTime", "min.compaction.lag.ms": "0"},
    )  # fmt: skip


def test_changelogs_compact_without_lag() -> None:
    assert by_name()["live.burn-state-changelog"] == (8, dict(CHANGELOG_CONFIG))
    assert CHANGELOG_CONFIG["min.compaction.lag.ms"] == "0"


def test_a_simulation_has_the_traces_clock_and_forgets_nothing() -> None:
    for name, (_, config) in by_name(simulation=True).items():  # type: ignore[misc]
        assert config.get("message.timestamp.type", "CreateTime") == "CreateTime", name
        assert config.get("retention.ms", "-1") == "-1", name
        assert name.endswith("-changelog") or config["message.timestamp.after.max.ms"] == str(2**63 - 1)
