"""What calls cost, counted again in plain Python: by genai-prices itself, a nano-dollar at a time."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN

from genai_prices import Usage, calc_price

from spendbrake.schemas.money import NANO
from spendbrake.schemas.usage import UNTAGGED, UsageEvent


@dataclass
class Totals:
    """Money (nano-USD) and calls by team."""

    cost: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


def cost_of(event: UsageEvent) -> int:
    """Return the cost of a call, nano-USD: as billed, else the library's price rounded half to even."""
    if event.cost is not None:
        return event.cost
    usage = Usage(
        input_tokens=event.input_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
    )
    at = datetime.fromtimestamp(event.time, UTC)
    usd = calc_price(usage, event.model, provider_id=event.provider, genai_request_timestamp=at).total_price
    return int((usd * NANO).to_integral_value(ROUND_HALF_EVEN))


def bill(events: Iterable[UsageEvent]) -> Totals:
    """Return what each team has spent: a call counts once, whatever its copies."""
    seen: set[tuple[str, str]] = set()
    totals = Totals()
    for event in events:
        if (event.source, event.request_id) not in seen:
            seen.add((event.source, event.request_id))
            team = event.team or UNTAGGED
            totals.cost[team] += cost_of(event)
            totals.calls[team] += 1
    return totals
