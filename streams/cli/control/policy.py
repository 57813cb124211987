"""`spendbrake policy`: a starter file, a check that names every problem, and putting a version into force."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from spendbrake.streams.cli.base import broker_of, console, fail, length_s, moment_text, place_of, run, settings, user

app = typer.Typer(help="Write, check and apply the policy file.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="Policy file (YAML).", exists=True, dir_okay=False)]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", dir_okay=False)] = Path("policy.yaml"),
) -> None:
    """Write a commented starter policy: what `up` and `demo` use when none is given."""
    from spendbrake.streams.budgets.starter import starter_text

    try:
        with file.open("x") as out:
            out.write(starter_text())
    except FileExistsError:
        fail(f"{file} exists; it is left as it is")
    console.print(f"{file}: edit it, then `spendbrake policy check {file}`")


@app.command()
def check(file: File) -> None:
    """Name every problem of a policy file at once; of a good one, what to think of, and whom it does not bind yet."""
    found: list[str] = []
    document = _load(file, lambda problem: found.append(str(problem)))
    console.print(f"{file}: a good policy file")
    for line in found:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in _rollouts(document):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def apply(
    file: File, at: Annotated[float | None, typer.Option(help="In force from this epoch second on.")] = None
) -> None:
    """Publish a policy file as the next version."""
    run(_apply(file, at))


@app.command("diff")
def diff_(
    file: File,
    other: Annotated[
        Path | None, typer.Argument(help="Compare with this file; with what is in force when absent.", exists=True)
    ] = None,
) -> None:
    """Tell what a policy file would change; exit 1 if anything."""
    from spendbrake.schemas.policy import PolicyFile
    from spendbrake.streams.budgets.diff import diff

    before = run(_in_force()) if other is None else _load(other)
    changes = diff(PolicyFile.model_validate(before), PolicyFile.model_validate(_load(file)))
    for change in changes:
        console.print(str(change), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(changes)} change{'s' if len(changes) != 1 else ''}")
    if changes:
        raise typer.Exit(1)


@app.command()
def record(
    name: Annotated[str | None, typer.Argument(help="Of one policy: each time, one by one.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what began in the last 90m, 12h, 7d.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what policies in shadow, and rollouts to the keys that they do not bind yet, would have done.

    The money is what was burned meanwhile, at the rate told as each limit began: not all of it would have been
    stopped. `policy backtest` obeys decisions, and says what would have been.
    """
    length = None if since is None else length_s(since)
    if since is not None and length is None:
        fail(f"--since {since}: a number with m, h or d, such as 12h", 2)
    run(_record(name, length, as_json))


def _rollouts(document: dict[str, object]) -> Iterator[str]:
    """Yield in words which policies bind only a share of the keys, or nobody."""
    from spendbrake.schemas.parts.currency import moment_of
    from spendbrake.schemas.policy import PolicyFile

    for policy in PolicyFile.model_validate(document).policies:
        if policy.mode == "shadow":
            yield f"policy {policy.name}: binds nobody; what it would have done is on record (mode: shadow)"
        elif policy.canary_percent is not None and policy.canary_percent < 100:
            share = f"{policy.canary_percent:g} % of the keys"
            yield f"policy {policy.name}: binds {share}; what it would have done to the others is on record"
            for step in policy.rollout:
                when = moment_text(moment_of(step.valid_from))
                yield f"policy {policy.name}: binds {step.percent:g} % of the keys from {when} on"


async def _record(name: str | None, length: float | None, as_json: bool) -> None:
    from spendbrake.streams.cli.alerts.would import sheet_of, spells_of
    from spendbrake.streams.workers.deployment import read_versions
    from spendbrake.streams.workers.people.actions import ActionBook
    from spendbrake.streams.workers.people.shadow import Would, binds, completed, document_of, would_of

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        actions, last = await ActionBook(broker, place).shadows()
        now = last if place.simulation else time.time()
        policies = (await read_versions(broker, place)).book.at(now).file.policies
    found = completed(would_of(actions, 0.0 if length is None else now - length), policies)
    bound = {each.name: binds(each) for each in policies}
    if name is not None:
        if name not in found and name not in bound:
            fail(f"no policy {name!r} is in force, and none has left a record")
        found = {name: found.get(name, Would())}
    if as_json:
        console.print_json(data=document_of(found, bound, now))
    else:
        console.print(sheet_of(found, bound, now) if name is None else spells_of(found[name], now))


async def _in_force() -> dict[str, object]:
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    async with broker_of(config) as broker:
        versions = await read_versions(broker, place_of(config))
        if not versions.policies:
            fail("no policy is in force: name another file to compare with")
        return versions.policies[versions.book.at(time.time()).version].document


@app.command("backtest")
def backtest_(
    candidate: File,
    events: Annotated[Path, typer.Argument(help="JSON lines of usage events, .gz too.", exists=True, dir_okay=False)],
    against: Annotated[
        Path | None, typer.Option(help="The policy of today; the starter policy when absent.", exists=True)
    ] = None,
    most_prod_refused: Annotated[int | None, typer.Option(help="More refused production calls: exit 3.")] = None,
    most_pages: Annotated[int | None, typer.Option(help="More messages to people: exit 3.")] = None,
    least_saved_usd: Annotated[float | None, typer.Option(help="Less money saved: exit 3.")] = None,
    lag_s: Annotated[float, typer.Option(help="From an event to its decision at the gateways, seconds.")] = 1.0,
) -> None:
    """Play recorded traffic under a policy whose decisions are obeyed, and under the one of today."""
    from spendbrake.streams.cli.control.backtest import backtest, saved

    if not 0 <= lag_s < math.inf:
        fail(f"--lag-s {lag_s:g}: seconds, not negative", 2)
    bills = backtest(_load(against) if against else None, _load(candidate), events, lag_s)
    found, usd = bills["candidate"], saved(bills, "candidate") / 1e9
    wrong = []
    if most_prod_refused is not None and found.refused_prod > most_prod_refused:
        wrong.append(f"{found.refused_prod} production calls refused, {most_prod_refused} are allowed")
    if most_pages is not None and found.pages > most_pages:
        wrong.append(f"{found.pages} messages to people, {most_pages} are allowed")
    if least_saved_usd is not None and usd < least_saved_usd:
        wrong.append(f"{usd:.2f} USD saved, at least {least_saved_usd:g} are wanted")
    if not bills["no brake"].calls:
        fail(f"{events}: no usage event in it")
    if wrong:
        fail("; ".join(wrong), 3)


def _load(file: Path, warned: Callable[[object], None] = lambda problem: None) -> dict[str, object]:
    from spendbrake.streams.cli.stack import policy_document

    try:
        return policy_document(file, warned)
    except ValueError as error:
        fail(str(error))


async def _apply(file: Path, at: float | None) -> None:
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    document = _load(file, lambda problem: console.print(str(problem), markup=False, highlight=False, soft_wrap=True))
    async with broker_of(config) as broker:
        place = place_of(config)
        versions = await read_versions(broker, place)
        version = versions.next_policy(document, time.time(), at)
        about = {"version": version.version, "digest": version.digest, "valid_from": version.valid_from}
        await Auditor(broker, place, time.time).publish(version, "policy.apply", user(), about)
        if not (await read_versions(broker, place)).holds(version):
            fail(f"version {version.version} was published by somebody else at the same moment: try again")
    when = "from the start" if version.version == 1 else f"from {moment_text(version.valid_from)} on"
    console.print(f"policy version {version.version} is in force {when}")
