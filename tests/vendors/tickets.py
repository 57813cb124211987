"""News written to a tracker by the effect that serves it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spendbrake.actions.effects.ticket import Ticket, Tracker
from spendbrake.schemas.action import Action


def write(tracker: Tracker, url: str, news: Sequence[Action]) -> list[Any]:
    """Carry news out one after the other, at `url`; return what each came to."""

    async def run() -> list[Any]:
        effect = Ticket({"backlog": replace(tracker, url=url)}, clock=time.time)
        try:
            return [await effect.carry_out(each) for each in news]
        finally:
            await effect.aclose()

    return asyncio.run(run())
