"""`spendbrake rerate`: the prices in force now, put on calls of days that are over."""

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, errors, fail, place_of, run, settings, user

MOST_DAYS = 59
"""What is older has left the windows: there is nothing left to move."""
SENT_AT_ONCE = 500
SKEW_S = 2.0
"""By how much the clock of a broker, which stamps records, may be behind this one."""


def rerate(
    since: Annotated[str, typer.Option(help="First day to put right: YYYY-MM-DD, UTC, of the calls' own time.")],
    until: Annotated[str | None, typer.Option(help="Last day; the newest when absent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be moved, by team.")] = False,
    counted_with: Annotated[
        Path | None,
        typer.Option(help="Wheel of the genai-prices of before.", exists=True, dir_okay=False),
    ] = None,
    new_book_at: Annotated[
        str | None, typer.Option(help="When workers began with the price book of now: 2026-11-20T10:00, UTC.")
    ] = None,
    shown: Annotated[int, typer.Option("--top", help="Teams to show, those that are moved most.")] = 20,
) -> None:
    """Price past calls by the policy in force now, and move totals, tiers and limits to what they should have been.

    Mend the price first (`prices.overrides` with `valid_from`, then `policy apply`), wait until it is in force, then
    `rerate --since DAY --dry-run`, then without. It reads the usage log again, counts it as it was counted, and writes
    the differences, signed, into the logs of the teams. Alerts that should not have been are resolved and blocks
    lifted; what should have been blocked is. Calls with a cost from their producer stay. Run again, it finds nothing
    more to move; cut off, it goes on where it stopped. Workers may run meanwhile (on Kafka).

    What the month before leaves to the running one (`rollover_percent`), and daily forecasts, follow when each node's
    next local day begins. Money without a place in time is moved as well, by the day that it came on.

    After an upgrade of genai-prices, too: give the wheel of the release before (`pip download genai-prices==X`) as
    `--counted-with`, and as `--new-book-at` when the workers began with the new one.
    """
    first = _day("--since", since)
    last = first + timedelta(days=MOST_DAYS) if until is None else _day("--until", until)
    if not first <= last:
        fail(f"--until {last} is before --since {first}", 2)
    if (counted_with is None) != (new_book_at is None):
        fail("--counted-with and --new-book-at: both or none", 2)
    earlier = None if counted_with is None or new_book_at is None else (counted_with, _at(new_book_at))
    run(_rerate(_start(first), _start(last + timedelta(days=1)), dry_run, shown, earlier))


async def _rerate(
    begin: float, end: float, dry_run: bool, shown: int, earlier: tuple[Path, float] | None = None
) -> None:
    from spendbrake.streams.offline.rerate import Fix
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        versions = await read_versions(broker, place)
        rules, book = versions.book.newest(), _book(versions, place, earlier)
        if not place.simulation:
            _check_force(rules, time.time())
        fixes = await _read(broker, place, config, versions, book, Fix(rules.prices, begin, end))
        deltas = [(fix.now, False, delta) for fix in fixes for delta in fix.deltas(rules.version, user())]
        deltas += [(fix.now, True, delta) for fix in fixes for delta in fix.unplaced(rules.version, user())]
        bills = {team: bill for fix in fixes for team, bill in fix.bills.items()}
        console.print(_table(bills, shown))
        moved = sum(bill.moved for bill in bills.values())
        told = f"{moved / 1e9:+,.2f} USD in {len(deltas):,} records, at the prices of policy version {rules.version}"
        if dry_run or not deltas:
            console.print(f"{told}: {'nothing was written' if deltas else 'there is nothing to move'}")
            return
        teams = {team: bill.moved for team, bill in sorted(bills.items()) if bill.moved}
        most = dict(sorted(teams.items(), key=lambda pair: -abs(pair[1]))[:100])
        about = {"by": user(), "begin": begin, "end": end, "records": len(deltas), "moved_nano": moved, "teams": most}
        async with Auditor(broker, place, time.time).around("rerate", f"policy/{rules.version}", about):
            await _write(broker, place, deltas)
    console.print(f"written: {told}")
    console.print("forecasts, and what is carried over from the month before, follow when a node's next day begins")


async def _read(broker: Any, place: Any, config: Any, versions: Any, book: Any, empty: Any) -> list[Any]:
    """Return a fix for each partition, with all that its log holds in it."""
    from spendbrake.schemas.topics import USAGE
    from spendbrake.streams.offline.rerate import recount
    from spendbrake.streams.workers.service import engine_settings

    topic, fixes, read, begin = place.topic(USAGE.name), [], 0, empty.begin
    rules, goes_on = versions.book.newest(), versions.topics[USAGE.name].epoch > 1
    with errors.status("reading the log again") as status:

        def progress(n: int) -> None:
            nonlocal read
            read += n
            status.update(f"reading the log again: {read:,} records")

        for partition, (first, next_) in sorted((await broker.ends(topic)).items()):
            if first >= next_:
                continue
            if first > 0 or goes_on:
                await _check_start(broker, topic, partition, first, begin)
            fix = type(empty)(empty.prices, begin, empty.end)
            span = broker.span(topic, partition, first, next_)
            await recount(span, partition, book, engine_settings(place, config), fix, progress)
            if place.simulation:
                _check_force(rules, fix.now)
            if begin < fix.now - MOST_DAYS * 86_400:
                fail(f"--since is more than {MOST_DAYS} days before {_moment(fix.now)}: no total goes back so far", 2)
            fixes.append(fix)
    return fixes


def _book(versions: Any, place: Any, earlier: tuple[Path, float] | None) -> Any:
    """Return the rules by which the log was counted."""
    from spendbrake.streams.engine.prices.data import read_wheel
    from spendbrake.streams.engine.rules.book import RuleBook

    if earlier is None:
        return versions.book
    data = read_wheel(earlier[0])
    return RuleBook(place.partitions, versions.policies.values(), versions.owners.values(), (data, earlier[1]))


def _at(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--new-book-at {text!r}: not a moment such as 2026-11-20T10:00", 2)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _check_force(rules: Any, now: float) -> None:
    """End where calls may still come that are counted at the prices of before: they would be left out."""
    if now < rules.valid_from + SKEW_S:
        fail(f"policy version {rules.version} is in force from {_moment(rules.valid_from)} on: run this again then")


async def _check_start(broker: Any, topic: str, partition: int, first: int, begin: float) -> None:
    """End where calls of the range may have left the log, or were in one that this goes on from (`rehome`)."""
    async for batch in broker.span(topic, partition, first, first + 1):
        at = batch.timestamps_ms[0] / 1_000
        if at > begin:
            fail(f"{topic}/{partition} begins at {_moment(at)}: what came before can no longer be told; begin later")


async def _write(broker: Any, place: Any, deltas: list[tuple[float, bool, Any]]) -> None:
    """Write differences into the logs of their teams, those without a place in time as such, all acknowledged."""
    from spendbrake.schemas.command import InternalKind
    from spendbrake.schemas.topics import USAGE
    from spendbrake.schemas.wire.avro import encode
    from spendbrake.schemas.wire.envelope import seal
    from spendbrake.schemas.wire.murmur import partition_of

    under_way = []
    with errors.status("writing") as status:
        for n, (now, unplaced, delta) in enumerate(deltas, 1):
            kind: InternalKind = "delta_unplaced" if unplaced else "delta"
            key, value = delta.team.encode(), encode(delta)
            sent = await broker.send(
                place.topic(USAGE.name),
                key=key,
                value=value,
                partition=partition_of(key, place.partitions),
                timestamp_ms=round(now * 1_000) if place.simulation else None,
                headers=seal(kind, USAGE.name, key, value, place.secrets[0]),
            )
            under_way.append(sent)
            if len(under_way) == SENT_AT_ONCE or n == len(deltas):
                for each in under_way:
                    await each
                under_way = []
                status.update(f"writing: {n:,} of {len(deltas):,} records")


def _table(bills: dict[str, Any], shown: int) -> Table:
    table = Table("team")
    for name in ("counted, USD", "at these prices", "difference"):
        table.add_column(name, justify="right")
    ordered = sorted(bills.items(), key=lambda pair: (-abs(pair[1].moved), pair[0]))
    for team, bill in ordered[:shown]:
        table.add_row(team, f"{bill.before / 1e9:,.4f}", f"{bill.after / 1e9:,.4f}", f"{bill.moved / 1e9:+,.4f}")
    if len(ordered) > shown:
        rest = [bill for _, bill in ordered[shown:]]
        sums = sum(b.before for b in rest), sum(b.after for b in rest), sum(b.moved for b in rest)
        table.add_row(f"{len(rest)} more", f"{sums[0] / 1e9:,.4f}", f"{sums[1] / 1e9:,.4f}", f"{sums[2] / 1e9:+,.4f}")
    return table


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text!r}: not a date such as 2026-11-01", 2)


def _start(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
