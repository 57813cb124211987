"""`spendbrake explain ACTION_ID`: why an action was taken, from the records that led to it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, fail, place_of, run, settings


def explain(
    action_id: Annotated[str, typer.Argument(help="Id of the action, as a gateway or a message shows it.")],
    derive: Annotated[
        bool, typer.Option("--derive", help="Run the engine over the log again, and tell whether it says the same.")
    ] = False,
) -> None:
    """Show an action, the finding behind it, the record it stands on, and what became of it."""
    run(_explain(action_id, derive))


async def _explain(action_id: str, derive: bool) -> None:
    from spendbrake.schemas.action import Action
    from spendbrake.schemas.finding import Finding
    from spendbrake.schemas.result import Result
    from spendbrake.schemas.topics import ACTIONS, FINDINGS, RESULTS

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)

        async def read(topic: str, kind: Any, wanted: Any) -> list[Any]:
            return [m async for m in messages(broker, place.topic(topic), kind) if wanted(m)]

        actions = await read(ACTIONS.name, Action, lambda m: m.id == action_id)
        if not actions:
            fail(f"no action {action_id!r} in {place.topic(ACTIONS.name)}: unknown, or older than the log")
        action = actions[0]
        findings = await read(FINDINGS.name, Finding, lambda m: m.id == action.finding)
        results = await read(RESULTS.name, Result, lambda m: m.action == action_id)
        story = _story(action, len(actions), findings, results)
        if derive:
            story.add_row("derived", await _derive(broker, config, place, action))
    console.print(story)


async def _derive(broker: Any, config: Any, place: Any, action: Any) -> str:
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
        return f"[green]the same action[/], {read}"
    if found.action is None:
        return f"[red]no such action[/] {read}"
    return f"[red]another[/] {read}, in {', '.join(found.differs)}"


async def messages(broker: Any, topic: str, kind: Any) -> Any:
    """Yield the messages of a topic; what is none is passed over."""
    from spendbrake.schemas.wire.avro import decode
    from spendbrake.schemas.wire.errors import BadRecord

    async for value in broker.read(topic):
        try:
            yield decode(kind, value)
        except BadRecord:
            continue


def _story(action: Any, n: int, findings: list[Any], results: list[Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("action", f"[bold]{action.verdict}[/] {action.node} ({action.scope.text()}) by {action.effect}")
    table.add_row("mode", f"{action.mode}, policy {action.policy}, rung {action.rung}, turn {action.turn}")
    table.add_row("at", f"{_when(action.time)}, ends {_when(action.expires_at)}")
    table.add_row("why", action.reason)
    table.add_row(
        "stands on", f"partition {action.partition}, epoch {action.stamp.epoch}, offset {action.stamp.offset}"
    )
    for name, value in sorted(action.evidence.items()):
        if not isinstance(value, dict | list):
            table.add_row(f"  {name}", str(value))
    for finding in findings[:1]:
        table.add_row("finding", f"{finding.detector} {finding.severity}: {finding.reason}")
        for top in finding.evidence.get("top", [])[:5]:
            table.add_row(
                "  carried by", f"{top.get('kind')} {top.get('name')}: {top.get('cost_nano', 0) / 1e9:.4f} USD"
            )
    for result in results:
        table.add_row("result", f"{result.outcome} at {_when(result.at)} after {result.attempts} tries")
    table.add_row("records", f"{n} in the log (a replay or a republishing repeats an action under its id)")
    return table


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
