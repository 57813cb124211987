"""What control.v1 says: when a version may come into force, and what is known of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from enginelog import policy
from spendbrake.schemas.control import Acknowledgement, Owner, Silence
from spendbrake.streams.cli.stack import held_instead
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.transport.clients.control import KeyValue
from spendbrake.streams.workers.audit import Auditor
from spendbrake.streams.workers.delivering import rules_of
from spendbrake.streams.workers.deployment import Place, read_versions
from spendbrake.streams.workers.versions import KEPT, OUTLIVED_S, Versions, control_record

NOW = 1_000.0
OWNER = Owner(key="k", team="a")


def known(clock: float = 0.0) -> Versions:
    versions = Versions(4, lambda: clock)
    versions.take([control_record(versions.next_policy(policy(), NOW, None))])
    return versions


def test_the_first_policy_holds_from_the_beginning() -> None:
    first = Versions(4, lambda: 0.0).next_policy(policy(), NOW, None)
    assert (first.version, first.valid_from, first.published_at) == (1, 0.0, NOW)


def test_a_policy_comes_into_force_half_a_minute_ahead_at_the_earliest() -> None:
    versions = known()
    with pytest.raises(ValueError, match="30 s from now at the earliest"):
        versions.next_policy(policy(), NOW, NOW + 29.9)
    for never in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="epoch seconds"):
            versions.next_policy(policy(), NOW, never)
    assert versions.next_policy(policy(), NOW, NOW + 30).valid_from == NOW + 30
    assert versions.next_policy(policy(), NOW, None).valid_from == NOW + 30


def test_a_file_that_was_changed_since_is_not_what_was_published_last() -> None:
    versions = known()
    held = [held_instead(versions, policy()), held_instead(versions, policy(calendar={"timezone": "Asia/Tokyo"}))]
    assert held == [0, 1]


def test_owners_hold_for_no_event_that_may_be_on_its_way() -> None:
    versions = known()
    versions.take([control_record(versions.next_owners([OWNER], NOW, counted=False))])
    assert versions.owners[1].valid_from == 0.0
    second = versions.next_owners([OWNER], NOW, counted=False)
    # An event may be ten minutes ahead of the clock, and its reader half a minute behind with control.
    assert (second.version, second.valid_from) == (2, NOW + 660)
    assert known().next_owners([OWNER], NOW, counted=True).valid_from == NOW + 660, (
        "what was counted stays whose it was"
    )


def test_a_document_that_is_no_policy_gets_no_number() -> None:
    with pytest.raises(ValueError, match="nodes"):
        known().next_policy({"nodes": 7}, NOW, None)


def test_what_is_read_again_is_no_news() -> None:
    versions = known()
    again = control_record(versions.policies[1])
    assert versions.take([again, (b"gone", None), (b"odd", b"\0\0\0\0\x63x")]) is False
    assert versions.book.at(NOW).version == 1


async def test_every_new_version_is_told_of() -> None:
    versions = known()
    record = control_record(versions.next_policy(policy(), NOW, None))
    answers: list[Sequence[KeyValue]] = [[], [record], [record]]
    heard: list[int] = []

    class Follower:
        def read_to_end(self) -> Sequence[KeyValue]:
            return []

        def follow(self, wait_s: float) -> Sequence[KeyValue]:
            if not answers:
                raise EOFError
            return answers.pop(0)

    with pytest.raises(EOFError):
        await asyncio.wait_for(versions.follow(Follower(), lambda: heard.append(len(answers))), 10)
    assert heard == [1]


@pytest.mark.parametrize("compacted", [False, True])
def test_of_two_versions_of_one_number_the_first_holds_for_whoever_reads_whenever(compacted: bool) -> None:
    empty = Versions(4, lambda: 0.0)
    policies = [empty.next_policy(policy(), NOW + late, None) for late in (0, 1)]
    owners = [empty.next_owners([replace(OWNER, team=team)], NOW, counted=False) for team in ("a", "b")]
    records = [control_record(message) for message in (*policies, *owners)]
    if compacted:
        last = {key: place for place, (key, _) in enumerate(records)}
        records = [record for place, record in enumerate(records) if last[record[0]] == place]
    versions = Versions(4, lambda: 0.0)
    versions.take(records)
    assert [versions.holds(message) for message in (*policies, *owners)] == [True, False, True, False]
    assert versions.book.owners.count == 1


def silence(name: str, *matchers: str, ends_at: float = 2 * NOW) -> Silence:
    return Silence(
        id=name, matchers=matchers, starts_at=0.0, ends_at=ends_at, created_at=0.0, created_by="me", comment=""
    )


def test_what_people_have_said_of_alerts_is_kept_in_a_bounded_number_the_latest() -> None:
    versions = known()
    words = [Acknowledgement(trouble=str(number), action="", at=NOW, by="me") for number in range(KEPT + 1)]
    versions.take(map(control_record, [words[0], words[1], words[0], *words[2:], silence("s", "team=a")]))
    assert len(versions.acknowledged) == KEPT
    assert "0" in versions.acknowledged, "said again"
    assert "1" not in versions.acknowledged


def test_a_silence_that_is_over_or_that_no_pattern_can_be_made_of_mutes_nobody_and_ends_no_worker() -> None:
    versions = known()
    bad = silence("looks-back", r'node=~"(a)\1"')
    versions.take(map(control_record, [bad, silence("over", "team=a", ends_at=NOW), silence("good", "team=a")]))
    in_force = rules_of(versions)
    assert [each.id for each in in_force(NOW).silences] == ["good"]
    assert in_force(NOW + 1) is in_force(NOW), "the same object while nothing changes"


async def test_what_was_said_of_alerts_that_are_long_over_leaves_the_topic(tmp_path: Path) -> None:
    place = Place(prefix="", partitions=4, usage_retention_s=86_400.0, simulation=False, secrets=(b"s",))
    broker = EmbeddedBroker(tmp_path, lambda: NOW)
    await broker.create_topics(place.plans())
    clock = [NOW]
    auditor = Auditor(broker, place, lambda: clock[0])
    old = Acknowledgement(trouble="a/1", action="", at=NOW, by="me")
    over = Silence(
        id="s", matchers=("team=a",), starts_at=NOW, ends_at=NOW + 1, created_at=NOW, created_by="me", comment=""
    )
    late = NOW + OUTLIVED_S + 2
    for said in (old, over, replace(old, trouble="b", at=late), replace(over, id="t", ends_at=late)):
        await auditor.publish(said, "alert.acknowledge", "me", {})
    versions = await read_versions(broker, place)
    assert versions.outlived(NOW + OUTLIVED_S) == []
    assert sorted(versions.outlived(late)) == [b"acknowledgement/a/1", b"silence/s"]
    clock[0] = late
    await auditor.say(versions, replace(old, trouble="c", at=late), "alert.acknowledge", "me", {})
    left = await read_versions(broker, place)
    assert (sorted(left.acknowledged), sorted(left.silences), left.outlived(late)) == (["b", "c"], ["t"], [])
    broker.close()
