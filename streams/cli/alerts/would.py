"""How the record of policies that bind nobody, or not everybody yet, is shown to people."""

from collections import Counter
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from spendbrake.schemas.money import NanoUsd, usd_text
from spendbrake.streams.cli.alerts.incident import when
from spendbrake.streams.workers.people.shadow import Spell, Would

GONE = "no longer in force"
DONE = {
    "throttle": "throttled",
    "downgrade": "downgraded",
    "queue": "queued",
    "approve": "put under approval",
    "block": "blocked",
}


def sheet_of(found: Mapping[str, Would], bound: Mapping[str, str], now: float) -> Table:
    """Return a row a policy.

    Args:
        bound: Whose keys each policy in force binds.
    """
    table = Table(box=None, padding=(0, 2))
    for name in ("policy", "binds", "would have", "teams", "since", "messages"):
        table.add_column(name, overflow="fold")
    for name in ("for", "burned meanwhile"):
        table.add_column(name, justify="right")
    for name, would in found.items():
        table.add_row(
            name,
            bound.get(name, GONE),
            _counted(would) or "done nothing yet",
            ", ".join(sorted({spell.team or spell.node for spell in would.spells})),
            when(would.spells[0].at) if would.spells else "",
            _listed(would.messages),
            span(would.lasted(now)),
            _money(would.burned(now)),
        )
    return table


def spells_of(would: Would, now: float) -> Table:
    """Return a row a time that a policy would have acted."""
    table = Table(box=None, padding=(0, 2))
    for name in ("began", "for", "node", "calls", "would have", "burned meanwhile", "why", "end"):
        table.add_column(name, overflow="fold")
    for spell in would.spells:
        lasted = span(min(spell.until, now) - spell.at)
        table.add_row(
            when(spell.at),
            lasted if spell.until <= now else f"{lasted}, goes on",
            spell.node,
            _calls(spell),
            ", then ".join(dict.fromkeys(DONE[step.verdict] for step in spell.steps)),
            _money(spell.burned(now)),
            Text(spell.reason),
            Text(spell.end),
        )
    return table


def _counted(would: Would) -> str:
    counts = would.verdicts()
    return ", ".join(f"{DONE[verdict]} {_times(counts[verdict])}" for verdict in DONE if verdict in counts)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _listed(messages: Counter[str]) -> str:
    return ", ".join(f"{n} to {name}" for name, n in sorted(messages.items()) if n)


def _calls(spell: Spell) -> str:
    calls = "all" if spell.scope == "*" else spell.scope
    return calls if spell.beyond_percent is None else f"{calls}, of keys beyond {spell.beyond_percent:g} %"


def _money(nano: NanoUsd | None) -> str:
    return "" if nano is None else f"about {usd_text(nano)}"


def span(seconds: float) -> str:
    """Return a length of time for people, to two units.

    Examples:
        >>> span(0), span(59.6), span(3_700), span(90_000)
        ('', '1 min', '1 h 2 min', '1 d 1 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds > 0 else ""
    minutes = round(seconds / 60)
    parts = [(minutes // 1_440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join(f"{n} {name}" for n, name in (parts[:2] if parts[0][0] else parts) if n)
