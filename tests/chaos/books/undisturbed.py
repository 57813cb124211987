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
from spendbrake.schemas.topics import ACTIONS, CONTROL, FINDINGS, USAGE
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.versions import Versions

AT_ONCE = 2_000


def undisturbed(scene: Scene) -> Iterator[OutRecord]:
    """Yield everything the log of usage comes to."""
    versions = Versions(PARTITIONS, time.monotonic)
    versions.take([(record.key or b"", record.value) for record in scene.read(CONTROL.name)])
    settings = EngineSettings(partitions=PARTITIONS, secrets=(SECRET.encode(),), dedupe_blocks=DEDUPE_BLOCKS)
    engine = Engine(versions.book, settings)
    for number in range(PARTITIONS):
        state: Any = engine.new_state(number, 1)
        for chunk in chunks(scene.stream(USAGE.name, number)):
            yield from engine.step(state, chunk, {}).records


def chunks(records: Iterable[Kept]) -> Iterator[Chunk]:
    """Yield the records of a partition as chunks."""
    left, joins = iter(records), 0
    while some := list(islice(left, AT_ONCE)):
        yield Chunk(
            topic=USAGE.name,
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
    """Note what of teams and below was said otherwise than an undisturbed engine does; return how many incidents."""
    above = set(scene.company.budgets) - set(scene.company.teams)
    findings, actions = set(), set()
    for record in undisturbed(scene):
        if record.topic == FINDINGS.name:
            findings.add(_said(decode(Finding, record.value or b"")))
        elif record.topic == ACTIONS.name:
            action = decode(Action, record.value or b"")
            if action.effect in ("slack", "webhook"):
                actions.add((action.id, action.time))
    told = {_said(finding) for finding in scene.findings() if finding.node not in above}
    ordered = {
        (action.id, action.time)
        for action in scene.actions()
        if action.effect in ("slack", "webhook") and action.node not in above
    }
    verdict.sets("findings of an undisturbed engine", told, findings)
    verdict.sets("notifications of an undisturbed engine", ordered, actions)
    return sum(tier == "" and state == "open" for _, _, tier, state, _ in findings)


def _said(finding: Finding) -> tuple[str, str, str, str, float]:
    return finding.id, finding.node, finding.tier or "", finding.state, finding.time
