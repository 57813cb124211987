"""`spendbrake explain ID`: why an action was taken, or what an incident was, from the records that led to it."""

from collections.abc import Collection
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from spendbrake.schemas.money import usd_text
from spendbrake.streams.cli.alerts.incident import add_evidence, sheet, story, when
from spendbrake.streams.cli.base import broker_of, console, fail, marked, place_of, run, settings


def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Of an action, as a gateway or a message shows it; of a finding or incident."
        ),
    ],
    derive: Annotated[
        bool, typer.Option("--derive", help="Run the engine over the log again, and tell whether it says the same.")
    ] = False,
) -> None:
    """Show an action, the finding behind it and what became of it; or an incident from first to last."""
    run(_explain(name, derive))


async def _explain(name: str, derive: bool) -> None:
    from spendbrake.schemas.action import Action
    from spendbrake.schemas.finding import Finding
    from spendbrake.schemas.result import Result
    from spendbrake.schemas.topics import ACTIONS, FINDINGS, RESULTS, STANDING
    from spendbrake.streams.workers.people.told import is_meant

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)

        async def read(topic: str, kind: Any, wanted: Any) -> list[Any]:
            return [m async for m in messages(broker, place.topic(topic), kind) if wanted(m)]

        logs = (ACTIONS.name, STANDING.name)  # what stands is told again when the first telling is past its retention
        actions = [each for log in logs for each in await read(log, Action, lambda m: is_meant(name, m.id))]
        if not actions:
            console.print(await _incident(read, name, derive))
            return
        _check_one(name, {action.id for action in actions})
        action = actions[0]
        findings = await read(FINDINGS.name, Finding, lambda m: m.id == action.finding)
        results = await read(RESULTS.name, Result, lambda m: m.action == action.id)
        story = _story(action, len(actions), findings, results)
        if derive:
            story.add_row("derived", await _derive(broker, config, place, action))
    console.print(story)


async def _derive(broker: Any, config: Any, place: Any, action: Any) -> str | Text:
    """Run the engine over the log that an action stands on; return what came of it, for people."""
    from spendbrake.schemas.topics import ROLLUPS, USAGE
    from spendbrake.streams.engine.parents.step import ParentsEngine
    from spendbrake.streams.offline.derive import Steps, derive
    from spendbrake.streams.workers.deployment import read_versions
    from spendbrake.streams.workers.service import new_engine

    topic = place.topic(USAGE.name if action.team else ROLLUPS.name)
    first, _ = (await broker.ends(topic))[action.partition]
    if first > 0:
        return f"not possible: {topic} begins at offset {first:,}, what came before is past its retention"
    book = (await read_versions(broker, place)).book
    engine: Steps = ParentsEngine(book, place.partitions, place.secrets)
    if action.team:
        engine = new_engine(book, place, config)
    with console.status("reading the log again") as status:
        span = broker.span(topic, action.partition, 0, action.stamp.offset + 1)
        found = await derive(span, engine, action, lambda n: status.update(f"reading the log again: {n:,} records"))
    read = f"from the {found.records:,} records up to it"
    if found.same:
        return marked("green", "the same action", f", {read}")
    if found.action is None:
        return marked("red", "no such action", f" {read}")
    return marked("red", "another", f" {read}, in {', '.join(found.differs)}")


async def messages(broker: Any, topic: str, kind: Any) -> Any:
    """Yield the messages of a topic; what is none is passed over."""
    from spendbrake.schemas.wire.avro import decode
    from spendbrake.schemas.wire.errors import BadRecord

    async for value in broker.read(topic):
        try:
            yield decode(kind, value)
        except BadRecord:
            continue


async def _incident(read: Any, name: str, derive: bool) -> Table:
    """Return the story of an incident that its own id or that of one of its findings names."""
    from spendbrake.schemas.action import Action
    from spendbrake.schemas.finding import FEEDBACK, Finding
    from spendbrake.schemas.topics import ACTIONS, FINDINGS
    from spendbrake.streams.workers.people.told import is_meant

    named = await read(FINDINGS.name, Finding, lambda m: is_meant(name, m.id) or is_meant(name, m.incident))
    if not named:
        fail(f"no action, finding or incident {name!r} here: unknown, or older than the log")
    if derive:
        fail("--derive takes the id of an action: what an incident has led to is derived, not the incident", 2)
    _check_one(name, {each.incident or each.id for each in named})
    whole = named[0].incident or named[0].id
    told = {each.id: each for each in await read(FINDINGS.name, Finding, lambda m: whole in (m.id, m.incident))}
    known = await read(ACTIONS.name, Action, lambda m: m.finding in told)
    findings = sorted(told.values(), key=lambda each: each.time)
    words = [each for each in findings if each.family == FEEDBACK]
    findings = [each for each in findings if each.family != FEEDBACK]
    return story(findings, words, list({each.id: each for each in known}.values()))


def _check_one(name: str, found: Collection[str]) -> None:
    if len(found) > 1:
        fail(f"{name!r} begins {len(found)} ids: give more of it", 2)


def _story(action: Any, n: int, findings: list[Any], results: list[Any]) -> Table:
    table = sheet()
    about = f" {action.node} ({action.scope.text()}) by {action.effect}"
    table.add_row("action", marked("bold", action.verdict, about))
    table.add_row("mode", f"{action.mode}, policy {action.policy}, rung {action.rung}, turn {action.turn}")
    table.add_row("at", f"{when(action.time)}, ends {when(action.expires_at)}")
    table.add_row("why", Text(action.reason))
    table.add_row(
        "stands on", f"partition {action.partition}, epoch {action.stamp.epoch}, offset {action.stamp.offset}"
    )
    for field, value in sorted(action.evidence.items()):
        if not isinstance(value, dict | list) and value is not None:
            shown = usd_text(value) if field.endswith("_nano") and isinstance(value, int) else str(value)
            shown += " of the basis" * (field == "threshold")
            table.add_row(f"  {field.removesuffix('_nano')}", Text(shown))
    for finding in findings[:1]:
        table.add_row("finding", f"{finding.detector} {finding.severity}, incident {finding.incident or finding.id}")
        if finding.reason != action.reason:
            table.add_row("  told", Text(finding.reason))
        add_evidence(table, finding.evidence)
    for result in results:
        table.add_row("result", f"{result.outcome} at {when(result.at)} after {result.attempts} tries")
    table.add_row("records", f"{n} in the log (a replay or a republishing repeats an action under its id)")
    return table
