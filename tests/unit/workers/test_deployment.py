"""A worker starts only on the topics that were registered, as they were registered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from spendbrake.schemas.control import TopicRegistration
from spendbrake.streams.workers.deployment import REGISTERED, Place, Refused, admitted
from spendbrake.streams.workers.versions import Versions, control_record

PLACE = Place(prefix="live.", partitions=4, usage_retention_s=1_000.0)


@dataclass
class Topics:
    """What a broker says of its topics."""

    ids: dict[str, str] = field(default_factory=lambda: {f"live.{name}": f"id-{name}" for name in REGISTERED})
    problems: list[str] = field(default_factory=list)

    async def check_topics(self, plans: Sequence[Any]) -> list[str]:
        return list(self.problems)

    async def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        return {name: self.ids[name] for name in names}


def registered(epoch: int = 3, partitions: int = 4, names: Sequence[str] = REGISTERED) -> Versions:
    versions = Versions(4, lambda: 0.0)
    messages = [
        TopicRegistration(name=name, topic_id=f"id-{name}", epoch=epoch, partitions=partitions) for name in names
    ]
    versions.take(control_record(message) for message in messages)
    return versions


async def start(topics: Topics, versions: Versions) -> dict[str, int]:
    return await admitted(cast(Any, topics), PLACE, versions)


async def test_the_epochs_are_those_that_were_registered() -> None:
    assert await start(Topics(), registered(epoch=3)) == dict.fromkeys(REGISTERED, 3)


async def test_topics_that_were_never_registered_are_refused() -> None:
    with pytest.raises(Refused, match=r"live\.rollups\.v1: not registered; run `spendbrake topics create`"):
        await start(Topics(), registered(names=["usage.v1", "actions.v1"]))


async def test_a_topic_that_was_made_anew_is_refused() -> None:
    topics = Topics()
    topics.ids["live.usage.v1"] = "another"
    with pytest.raises(Refused, match=r"live\.usage\.v1: not the topic that was registered \(epoch 3\)"):
        await start(topics, registered())


async def test_another_number_of_partitions_is_refused() -> None:
    with pytest.raises(Refused, match="registered with 8 partitions for life"):
        await start(Topics(), registered(partitions=8))


async def test_every_deviation_of_the_broker_is_named() -> None:
    with pytest.raises(Refused, match=r"(?s)usage.*\n.*actions"):
        await start(Topics(problems=["usage.v1: does not exist", "actions.v1: has 3 partitions"]), registered())
