"""A finding for people in a terminal: the words that were told, and the figures behind them. It judges nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import usd_text
from spendbrake.streams.cli.base import marked

TOP = 7


def sheet() -> Table:
    """Return an empty sheet of names and values."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    return table


def when(at: float) -> str:
    """Return a moment for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def add_evidence(table: Table, evidence: Mapping[str, Any]) -> None:
    """Add what a finding stands on: the rise by its factors, what it was held against, who carries it, what is left."""
    for one in evidence.get("moved", ()):
        amount = int(one["usd_h_nano"])
        sign = "+" if amount >= 0 else "-"
        table.add_row(f"  {one['factor']}", f"x{one['times']:.2f}, {sign}{usd_text(abs(amount))}/h")
    if "moved_usd_h_nano" in evidence and evidence.get("moved"):
        whole = int(evidence["moved_usd_h_nano"])
        sign = "+" if whole >= 0 else "-"
        table.add_row("  the last hour", f"{sign}{usd_text(abs(whole))}/h against the usual, the sum of these")
    for name, words in (("usual_usd_h", "usual"), ("expected_usd_h", "expected"), ("span_rate_usd_h", "burned")):
        if name in evidence:
            table.add_row(f"  {words}", f"${float(evidence[name]):,.2f}/h")
    if "record_usd" in evidence:
        held = f"${float(evidence['amount_usd']):,.2f} against " if "amount_usd" in evidence else ""
        table.add_row("  held against", f"{held}${float(evidence['record_usd']):,.2f}, the most before")
    for one in evidence.get("top", ())[:TOP]:
        table.add_row("  carried by", f"{one['kind']} {one['name']}: {usd_text(int(one['cost_nano']))} in 15 min")
    for one in evidence.get("sessions", ())[:TOP]:
        calls = "1 call" if one["calls"] == 1 else f"{one['calls']:,} calls"
        table.add_row("  under way", f"{one['name']} on key {one['key']}: {usd_text(int(one['cost_nano']))}, {calls}")
    if evidence.get("cap_left_nano") is not None:
        table.add_row("  to the next limit", usd_text(int(evidence["cap_left_nano"])))


def story(findings: Sequence[Finding], said: Sequence[Finding], actions: Sequence[Any]) -> Table:
    """Return an incident from its first finding to its last, its figures, what people said, and what followed."""
    table, first = sheet(), findings[0]
    where = f" at {first.node} of {first.team or 'the tree'}"
    table.add_row("incident", marked("bold", first.incident or first.id, where))
    table.add_row("seen by", ", ".join(dict.fromkeys(each.detector for each in findings)))
    for each in findings:
        told = Text(f"{each.state}, {each.severity}: {each.reason}")
        table.add_row(when(each.time), told)
    live = [each for each in findings if each.state != "resolve"]
    if live:
        table.add_row("figures", Text(f"as of {when(live[-1].time)}, by {live[-1].detector}"))
        add_evidence(table, live[-1].evidence)
    for word in said[-1:]:
        table.add_row("judged", Text(word.reason))
    for action in actions:
        scope = f"{action.verdict} {action.node}" if action.effect == "limits" else f"{action.rung} told"
        where = f" at {action.destination}" if action.destination else ""
        table.add_row("action", f"{scope}{where} by {action.effect}, {when(action.time)}: {action.id}")
    return table
