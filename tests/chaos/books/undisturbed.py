"""What one engine says that nothing ever happened to: the same log, read once, from its start to its end.

The recount proves money and tiers without the engine. This proves the rest of what is sent (incidents of detectors,
their notifications, when each was told): outputs are a function of the log, whatever befell those that read it.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from chaos.scene import DEDUPE_BLOCKS, PARTITIONS, Scene
from chaos.verdict import Verdict
from kafka.deployment import SECRET, Kept
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, CONTROL, FINDINGS, ROLLUPS, USAGE
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.versions import Versions

AT_ONCE = 2_000
NOTIFIED = ("slack", "webhook")


def undisturbed(scene: Scene) -> Iterator[OutRecord]:
    """Yield everything that the logs of usage and of rollups come to."""
    versions = Versions(PARTITIONS, time.monotonic)
    versions.take([(record.key or b"", record.value) for record in scene.read(CONTROL.name)])
    secrets = (SECRET.encode(),)
    settings = EngineSettings(partitions=PARTITIONS, secrets=secrets, dedupe_blocks=DEDUPE_BLOCKS)
    engines: tuple[tuple[str, Any], ...] = (
        (USAGE.name, Engine(versions.book, settings)),
        (ROLLUPS.name, ParentsEngine(versions.book, PARTITIONS, secrets)),
    )
    for topic, engine in engines:
        for number in range(PARTITIONS):
            state = engine.new_state(number, 1)
            for chunk in chunks(topic, scene.stream(topic, number)):
                yield from engine.step(state, chunk, {}).records


def chunks(topic: str, records: Iterable[Kept]) -> Iterator[Chunk]:
    """Yield the records of a partition of a topic as chunks."""
    left, joins = iter(records), 0
    while some := list(islice(left, AT_ONCE)):
        yield Chunk(
            topic=topic,
            partition=some[0].partition,
            generation=1,
            joins=joins,
            first=some[0].offset,
            last=some[-1].offset,
            offsets=[record.offset for record in some],
            values=[record.value for record in some],
            keys=[record.key for record in some],
            timestamps_ms=[record.at_ms for record in some],
            headers=[record.headers for record in some],
        )
        joins = some[-1].offset + 1


def compare(verdict: Verdict, scene: Scene) -> int:
    """Note what was said otherwise than by undisturbed engines; return how many incidents detectors have opened."""
    findings, actions = set(), set()
    for record in undisturbed(scene):
        if record.topic == FINDINGS.name:
            findings.add(_said(decode(Finding, record.value or b"")))
        elif record.topic == ACTIONS.name:
            actions.add(_ordered(decode(Action, record.value or b"")))
    told = {_said(finding) for finding in scene.findings()}
    ordered = {_ordered(action) for action in scene.actions() if action.effect in NOTIFIED}
    actions = {each for each in actions if each[1] in NOTIFIED}
    verdict.sets("findings of an undisturbed engine", told, findings)
    verdict.sets("notifications of an undisturbed engine", ordered, actions)
    return sum(tier == "" and state == "open" for _, _, tier, state, _ in findings)


def _said(finding: Finding) -> tuple[str, str, str, str, float]:
    return finding.id, finding.node, finding.tier or "", finding.state, finding.time


def _ordered(action: Action) -> tuple[str, str, str, float]:
    return action.id, action.effect, action.node, action.time
