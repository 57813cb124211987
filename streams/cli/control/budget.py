"""`spendbrake budget`: ask for more money or an exception from a policy; approve, deny, withdraw."""

import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from spendbrake.schemas.command import APPROVERS, Role
from spendbrake.schemas.money import NanoUsd
from spendbrake.streams.cli.base import broker_of, console, fail, length_s, place_of, run, settings, user

app = typer.Typer(help="Top-ups and exceptions: requested by one, approved by two.", no_args_is_help=True)

By = Annotated[str, typer.Option(help="Who says so: it stands in the audit.")]
DeciderRole = Annotated[str, typer.Option(help="In which role: finance or engineering.")]
RequestId = Annotated[str, typer.Argument(help="Id of the request, as `budget requests` shows it.")]


@app.command()
def request(
    node: Annotated[str, typer.Argument(help="Id of the node whose limit is to be raised or lifted.")],
    by: By,
    reason: Annotated[str, typer.Option(help="Why: the approvers read it.")],
    usd: Annotated[str | None, typer.Option(help="How much more this month, USD.")] = None,
    amount: Annotated[str | None, typer.Option(help="The same in the currency of the node's amounts.")] = None,
    policy: Annotated[str | None, typer.Option(help="Instead of money: be free of this policy.")] = None,
    until: Annotated[str, typer.Option(help="For how long (90m, 24h, 3d), or until when (ISO 8601, UTC).")] = "24h",
    team: Annotated[str | None, typer.Option(help="Of a project or key that the policy file does not list.")] = None,
    role: Annotated[str, typer.Option(help="In which role.")] = "operator",
) -> None:
    """Ask. One person of finance and one of engineering must approve, neither of them the one who asks."""
    _check_role(role, get_args(Role))
    if [usd, amount, policy].count(None) != 2:
        fail("give --usd or --amount for a top-up, or --policy for an exception", 2)
    now = time.time()
    asked = {"node": node, "by": by, "role": role, "reason": reason, "policy": policy or "", "home": team}
    money = 0 if usd is None else _nano(usd)
    units = None if amount is None else _positive("--amount", amount)
    run(_say("request", asked | {"amount": money, "expires_at": _until(until, now)}, now, units))


@app.command()
def approve(request: RequestId, by: By, role: DeciderRole) -> None:
    """Approve a request."""
    _check_role(role, sorted(APPROVERS))
    run(_say("approve", {"request": request, "by": by, "role": role}, time.time()))


@app.command()
def deny(request: RequestId, by: By, role: DeciderRole = "operator") -> None:
    """Deny a request; who asked may take it back in any role."""
    _check_role(role, get_args(Role))
    run(_say("deny", {"request": request, "by": by, "role": role}, time.time()))


@app.command()
def withdraw(request: RequestId, by: By, role: DeciderRole = "operator") -> None:
    """End what was granted before its time; who asked may do so in any role. What the reserve has paid stays paid."""
    _check_role(role, get_args(Role))
    run(_say("withdraw", {"request": request, "by": by, "role": role}, time.time()))


@app.command()
def requests() -> None:
    """Show requests and what became of them."""
    run(_requests())


async def _say(kind: Any, fields: dict[str, Any], now: float, units: Decimal | None = None) -> None:
    from spendbrake.schemas.command import Command
    from spendbrake.streams.budgets.allocation.approvals import LONGEST_TEXT
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions
    from spendbrake.streams.workers.people import desk
    from spendbrake.streams.workers.people.requests import RequestBook

    config = settings()
    if not fields["by"].strip():
        fail("--by: a name, please: nobody approves what they asked for", 2)
    for name in ("by", "reason"):
        if len(fields.get(name, "")) > LONGEST_TEXT:
            fail(f"--{name}: at most {LONGEST_TEXT} characters, please", 2)
    async with broker_of(config) as broker:
        place = place_of(config)
        rules = (await read_versions(broker, place)).book.at(now)
        fields = {"node": "", **fields, "home": fields.get("home") or ""}
        command = Command(id=desk.new_id(kind), kind=kind, issued_at=now, **fields)
        known: list[Any] = []
        if command.request:
            known = (await RequestBook(broker, place).read()).get(command.request, [])
            if not known:
                fail(f"no request {command.request!r}: see `spendbrake budget requests`")
            command = desk.about(command, known[0])
        elif not command.home:
            command = desk.about_node(command, rules)
        if units is not None:
            try:
                command = replace(command, amount=desk.amount_of(units, command, rules))
            except ValueError as error:
                fail(f"--amount {units}: {error}", 2)
        name = command.request or command.id
        told = {"by": user(), "as": command.by, "command": command.id, "node": command.node}
        async with Auditor(broker, place, time.time).around(f"budget.{kind}", name, told):
            where = await desk.say(broker, place, rules, command, known)
    console.print(f"{kind} of {name} is in the log of {where}; `spendbrake budget requests` tells what follows")


async def _requests() -> None:
    from spendbrake.streams.workers.people.requests import RequestBook

    config = settings()
    table = Table("request", "what", "at")
    async with broker_of(config) as broker:
        for name, told in (await RequestBook(broker, place_of(config)).read()).items():
            for finding in told:
                at = datetime.fromtimestamp(finding.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
                table.add_row(name if finding is told[0] else "", finding.reason, at)
    console.print(table)


def _check_role(role: str, roles: Collection[str]) -> None:
    if role not in roles:
        fail(f"--role {role!r}: one of {', '.join(roles)}", 2)


def _positive(option: str, text: str) -> Decimal:
    """Return an amount of USD or of another currency."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        fail(f"{option} {text!r}: not an amount", 2)
    if not amount.is_finite() or amount <= 0:
        fail(f"{option} {text!r}: more than nothing, please, and less than all there is", 2)
    return amount


def _nano(text: str) -> NanoUsd:
    from spendbrake.streams.workers.people.desk import top_up

    try:
        return top_up(_positive("--usd", text))
    except ValueError as error:
        fail(f"--usd {text!r}: {error}", 2)


def _until(text: str, now: float) -> float:
    """Return an end, given as a life or as a moment, as epoch seconds."""
    from spendbrake.streams.budgets.allocation.approvals import DAY_S, LONGEST_S

    length = length_s(text)
    at = now + length if length is not None else _moment(text)
    if at <= now:
        fail(f"--until {text!r}: has passed", 2)
    if at > now + LONGEST_S:
        fail(f"--until {text!r}: more than {LONGEST_S / DAY_S:.0f} days ahead: ask again then", 2)
    return at


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        fail(f"--until {text!r}: neither a life such as 24h nor a moment such as 2026-12-01T00:00", 2)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
