"""Corrections: the original goes out, priced at its own time, and its replacement comes in. Rare, so one by one."""

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.engine.apply import Rows
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.columns import NO_COST, fingerprint_of, from_events
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Corrections:
    """Turns corrections into rows of either sign, and remembers which originals are spent."""

    def __init__(self, state: PartitionState, rules: Rules, routes: Routes, emit: Emitter) -> None:
        self.state, self.rules, self.routes, self.emit = state, rules, routes, emit

    def rows(self, corrections: list[tuple[int, UsageEvent]], offsets: I64, now: F64) -> Rows:
        """Return the rows of corrections `(place, event)`, in order; those for another home are forwarded."""
        signed: list[tuple[int, UsageEvent, int]] = []
        for place, event in corrections:
            signed += [(place, each, sign) for each, sign in self._one(place, event, offsets, now)]
        part = from_events([(place, event, None) for place, event, _ in signed])
        route = self.routes.resolve(part)
        sign = np.array([sign for _, _, sign in signed], np.int64)
        rate = self.routes.rate[route]
        tokens = (part.input_tokens, part.cache_read_tokens, part.cache_write_tokens, part.output_tokens)
        cost = np.where(part.cost != NO_COST, part.cost, self.rules.prices.cost(rate, part.at, *tokens))
        return Rows(
            place=part.place,
            offset=offsets[part.place],
            now=now[part.place],
            at=part.at,
            route=route,
            sign=sign,
            cost=sign * cost,
            error=sign * part.error,
            input_tokens=sign * part.input_tokens,
            cache_read_tokens=sign * part.cache_read_tokens,
            cache_write_tokens=sign * part.cache_write_tokens,
            output_tokens=sign * part.output_tokens,
            session=np.zeros(len(part), np.uint64),
        )

    def _one(self, place: int, event: UsageEvent, offsets: I64, now: F64) -> list[tuple[UsageEvent, int]]:
        """Return the events that one correction adds and takes away."""
        original = event.replaces
        if original is None:
            raise ValueError(f"{event.request_id!r} corrects nothing")
        offset, clock = int(offsets[place]), float(now[place])
        if self._elsewhere(place, original, clock, offset):
            return []
        seen = self.state.fingerprints
        own = fingerprint_of(event.source, event.request_id)
        if self._seen_before(own, offset):
            self.emit.count("duplicates")
            return []
        first = fingerprint_of(original.source, original.request_id)
        spent = xxh3_64_intdigest(b"replaced\0" + first.to_bytes(8, "big")) or 1
        if self._seen_before(spent, offset):
            self._refuse(place, clock, offset, "already_replaced", original)
            return []
        counted = seen.seen_at(first)
        if counted < 0 and original.time <= float(seen.oldest_at(np.array([offset]))[0]):
            self._refuse(place, clock, offset, "unmatched", original)
            return []
        seen.record(np.array([own], np.uint64), np.array([offset]))
        seen.mark(spent, offset)
        if counted < 0 or counted == offset:
            seen.mark(first, offset)  # the original is dropped when it comes
            return [(event, 1)]
        return [(original, -1), (event, 1)]

    def _seen_before(self, fingerprint: int, offset: int) -> bool:
        at = self.state.fingerprints.seen_at(fingerprint)
        return 0 <= at < offset and offset - at < self.state.fingerprints.horizon

    def _elsewhere(self, place: int, original: UsageEvent, clock: float, offset: int) -> bool:
        """Send a correction home by the owner of its original; tell whether it was sent."""
        route = self.routes.routes[int(self.routes.resolve(from_events([(place, original, None)]))[0])]
        if route.rows:
            return False
        if offset > self.state.emitted:
            self.emit.forward(place, clock, route.team_id, route.home)
        return True

    def _refuse(self, place: int, clock: float, offset: int, reason: str, original: UsageEvent) -> None:
        if offset > self.state.emitted:
            name = f"{original.source}/{original.request_id}"
            self.emit.dead(place, clock, "correct", reason, "replaces", f"original {name}: {reason.replace('_', ' ')}")
