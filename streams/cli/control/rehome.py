"""`spendbrake rehome`: go on with another number of partitions, under another prefix."""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import SIMULATION, broker_of, console, errors, fail, place_of, run, settings, user
from spendbrake.streams.settings import PREFIX

SENT_AT_ONCE = 500
WRITER = "rehome.0"
AUDITED = "rehome"


def rehome(
    prefix: Annotated[str, typer.Option(help="SPENDBRAKE_PREFIX of the deployment that goes on.")],
    partitions: Annotated[int, typer.Option(help="Its number of partitions.", min=1, max=1_024)],
    stragglers: Annotated[
        bool, typer.Option("--stragglers", help="Only send on what producers have sent to the old topic since.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved.")] = False,
) -> None:
    r"""Copy a deployment to topics of another prefix and number of partitions: nothing lost, nothing counted twice.

    \b
    1. Stop all workers in good order (SIGTERM): first burn, then parents, then act. Producers may go on.
    2. spendbrake rehome --prefix r2- --partitions 64
    3. Start all with SPENDBRAKE_PREFIX=r2- SPENDBRAKE_PARTITIONS=64, gateways with the new prefix as well.
    4. Let producers send to the new usage topic; then `rehome ... --stragglers` until it says that nothing came.

    State goes over with what was seen, so that nothing sent twice counts twice; limits, alerts, budgets, requests and
    grants go on. The old topics are left as they are: to go back, start with the old prefix. Looking back (`explain`,
    `rerate`) reaches as far as the new logs do. With a multiple of the old number the horizon of duplicates is kept.
    """
    run(_rehome(prefix, partitions, stragglers, dry_run))


async def _rehome(prefix: str, partitions: int, stragglers: bool, dry_run: bool) -> None:
    from spendbrake.schemas.topics import ROLLUPS
    from spendbrake.streams.workers.deployment import admitted, read_versions

    config = settings()
    old = place_of(config)
    new = replace(old, prefix=prefix, partitions=partitions)
    if new.prefix == old.prefix:
        fail(f"--prefix {prefix!r} is the one in use: topics keep their number of partitions for life", 2)
    if not re.fullmatch(PREFIX, prefix):
        fail(f"--prefix {prefix!r}: letters, digits, dots, dashes and underscores, 100 at most", 2)
    if prefix.startswith(SIMULATION) != old.simulation:
        fail(f"--prefix {prefix!r}: topics that begin with {SIMULATION!r} have a trace's clock, others the broker's", 2)
    async with broker_of(config) as broker:
        versions = await read_versions(broker, old)
        epochs = await admitted(broker, old, versions)
        if stragglers:
            n = await _send_stragglers(broker, old, new, dry_run)
            console.print(f"{n:,} records sent on" if n else "nothing came since")
            return
        await _check_told(broker, old)
        places = versions.book.newest().file.destinations
        moved, applied = await _rows(broker, old, new, config, max(epochs.values()) + 1, places)
        console.print(_table(moved))
        if dry_run:
            console.print("nothing was written")
            return
        await _prepare(broker, old, new, config)
        await _write(broker, moved)
        n, _ = await _send_on(broker, old, new, ROLLUPS.name, applied["parents"], dry_run)
        n += await _send_usage(broker, old, new, applied["burn"])
    console.print(f"{n:,} records that no state held were sent on")
    console.print(f"next: SPENDBRAKE_PREFIX={prefix} SPENDBRAKE_PARTITIONS={partitions} for all, then --stragglers")


async def _send_stragglers(broker: Any, old: Any, new: Any, dry_run: bool) -> int:
    """Send on what has come to the old usage topic since the last time, whoever has counted it there."""
    from spendbrake.schemas.result import Result
    from spendbrake.schemas.topics import RESULTS, USAGE
    from spendbrake.schemas.wire.avro import decode

    try:
        results = [decode(Result, value) async for value in broker.read(new.topic(RESULTS.name))]
    except LookupError:  # there is no such topic
        results = []
    told = [r for r in results if r.effect == AUDITED and r.outcome == "done"]
    if not told:
        fail(f"nothing was moved to {new.prefix!r} yet")
    sent_to = max(told, key=lambda result: result.at).response["sent_to"]
    if dry_run:
        n, _ = await _send_on(broker, old, new, USAGE.name, sent_to, dry_run)
        return n
    return await _send_usage(broker, old, new, sent_to)


async def _send_usage(broker: Any, old: Any, new: Any, applied: Sequence[int]) -> int:
    """Send on usage behind the offsets `applied`, and keep in the audit how far that was; return how much."""
    from spendbrake.schemas.topics import USAGE
    from spendbrake.streams.workers.audit import Auditor

    n, sent_to = await _send_on(broker, old, new, USAGE.name, applied, dry_run=False)
    about = {"by": user(), "from": old.prefix, "partitions": new.partitions, "records": n, "sent_to": sent_to}
    async with Auditor(broker, new, time.time).around(AUDITED, new.prefix, about):
        return n


async def _check_told(broker: Any, old: Any) -> None:
    """End where alerts lie undelivered: they would be told again, or never."""
    from spendbrake.schemas.topics import ACTIONS
    from spendbrake.streams.workers.deployment import CLASSES

    topic = old.topic(ACTIONS.name)
    ends = await broker.ends(topic)
    for name in CLASSES:
        told = await broker.committed(old.group(f"act-{name}"), topic)
        behind = sum(ends[number][1] - offset for number, offset in told.items())
        if behind:
            fail(f"{behind:,} actions wait for `worker act --class {name}`: let it run until none does")


async def _rows(
    broker: Any, old: Any, new: Any, config: Any, epoch: int, places: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], Any]:
    """Return (partition, row) by changelog of the new deployment, and how far the old one's usage is in them."""
    from spendbrake.streams.offline.rehome import Move, applied_of, ledger_rows, parent_rows, usage_rows
    from spendbrake.streams.transport.store import changelog_name
    from spendbrake.streams.workers.deployment import CLASSES, GROUPS

    move = Move(old.partitions, new.partitions, epoch)

    async def read(group: str) -> list[dict[str, bytes]]:
        return await _stored(broker, changelog_name(old.group(group), GROUPS[group]), group)

    def named(group: str) -> str:
        return changelog_name(new.group(group), GROUPS[group])

    with errors.status("reading the state"):
        teams, parents = await read("burn"), await read("parents")
        moved = {
            named("burn"): list(usage_rows(teams, move, config.burn.dedupe_blocks)),
            named("parents"): list(parent_rows(parents, move)),
        }
        for name in CLASSES:
            moved[named(f"act-{name}")] = list(ledger_rows(await read(f"act-{name}"), move, places, time.time()))
    applied = {"burn": [applied_of(rows) for rows in teams], "parents": [applied_of(rows) for rows in parents]}
    return moved, applied


async def _stored(broker: Any, topic: str, group: str) -> list[dict[str, bytes]]:
    """Return the rows of a changelog by partition: those that a worker which starts now would choose."""
    from spendbrake.streams.transport.store import split_key
    from spendbrake.streams.workers.notify.ledger import TERM_KEY, LedgerRow
    from spendbrake.streams.workers.partitions.choice import Version, choose

    chosen = []
    for number, (first, end) in sorted((await broker.ends(topic)).items()):
        found: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        async for batch in broker.span(topic, number, first, end):
            for key, value in zip(batch.keys, batch.values, strict=True):
                row, writer = split_key(key or b"")
                found[row].pop(writer, None)
                if value is not None:
                    found[row][writer] = value
        if group.startswith("act-"):
            held = {row: kept for row, kept in found.items() if kept and row != TERM_KEY}
            chosen.append({row: _latest(LedgerRow, row, kept) for row, kept in held.items()})
        else:
            versions = {row: {w: Version.parse(v) for w, v in kept.items()} for row, kept in found.items()}
            chosen.append(choose(versions))
    return chosen


def _latest(ledger_row: Any, row: str, kept: Mapping[str, bytes]) -> bytes:
    return max(kept.values(), key=lambda value: ledger_row.parse(row, value).turn)


async def _prepare(broker: Any, old: Any, new: Any, config: Any) -> None:
    """Create the new topics, with all that is in force; each is a later incarnation of the old one."""
    from spendbrake.schemas.topics import CONTROL, USAGE
    from spendbrake.streams.workers.deployment import create

    await broker.create_topics(new.plans())
    if any(end for _, end in (await broker.ends(new.topic(USAGE.name))).values()):
        fail(f"{new.topic(USAGE.name)} holds records already: choose a prefix that was never used")
    control = new.topic(CONTROL.name)
    reader = broker.control(old.topic(CONTROL.name))
    for key, value in await asyncio.to_thread(reader.read_to_end):
        await (await broker.send(control, key=key, value=value, partition=0))
    await create(broker, new, config.data_dir)


async def _write(broker: Any, moved: Mapping[str, list[Any]]) -> None:
    with errors.status("writing the state"):
        for topic, rows in moved.items():
            records = (
                {"key": f"{row.key}@{WRITER}".encode(), "value": row.value, "partition": partition}
                for partition, row in rows
            )
            await _send(broker, topic, records)


async def _send_on(
    broker: Any, old: Any, new: Any, topic: str, applied: Sequence[int], dry_run: bool
) -> tuple[int, list[int]]:
    """Send records behind the offsets `applied` into the new log of a topic, as they are.

    Returns how many, and the last offset of each partition. What the new state has seen before, it drops.
    """
    from spendbrake.schemas.wire.envelope import kind_of

    n, sent_to = 0, list(applied)
    for number, last in enumerate(applied):
        first, end = (await broker.ends(old.topic(topic)))[number]
        async for batch in broker.span(old.topic(topic), number, max(first, last + 1), end):
            records = [
                {"key": key, "value": value, "headers": tuple(headers), "partition": _home(key, new)}
                for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True)
                if kind_of(headers) != "tick"
            ]
            n += len(records)
            await _send(broker, new.topic(topic), () if dry_run else records)
        sent_to[number] = max(last, end - 1)
    return n, sent_to


def _home(key: bytes | None, new: Any) -> int:
    from spendbrake.schemas.wire.murmur import partition_of

    return partition_of(key or b"", new.partitions)


async def _send(broker: Any, topic: str, records: Iterable[dict[str, Any]]) -> None:
    under_way = []
    for record in records:
        under_way.append(await broker.send(topic, **record))
        if len(under_way) == SENT_AT_ONCE:
            for each in under_way:
                await each
            under_way = []
    for each in under_way:
        await each


def _table(moved: Mapping[str, list[Any]]) -> Table:
    table = Table("changelog")
    for name in ("rows", "partitions", "most in one"):
        table.add_column(name, justify="right")
    for topic, rows in moved.items():
        if rows:
            counts = Counter(partition for partition, _ in rows)
            table.add_row(topic, f"{len(rows):,}", str(len(counts)), f"{max(counts.values()):,}")
    return table
