"""Records to columns: which of a batch are usage events, which are the service's own, which are no good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.command import Command, Delta
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import MAGIC, decode, schema_id_of
from spendbrake.schemas.wire.envelope import decode_usage, kind_of, open_internal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.engine.intake.columns import FRAMED, Part, concat, from_bodies, from_events
from spendbrake.streams.engine.intake.objects import OBJECT, from_objects
from spendbrake.streams.engine.outcome import Batch, Headers

FEW = 8
"""Bodies so few that columns cost more than reading one by one."""
FORMS = ((from_bodies, FRAMED), (from_objects, OBJECT))
"""What reads values in columns, and how they begin."""
NONE = Part.empty()


@dataclass(frozen=True, slots=True)
class Correction:
    """An event that replaces another; `team` is where it was forwarded to, None for one that was not."""

    place: int
    event: UsageEvent
    original: UsageEvent
    team: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """A command, and the key of its record: the home of its node."""

    place: int
    home: str
    command: Command


@dataclass(frozen=True, slots=True)
class Shift:
    """A price fix, and the key of its record: the team's id; `apart`: of money that has no place in time."""

    place: int
    home: str
    delta: Delta
    apart: bool


@dataclass(slots=True)
class Intake:
    """A batch, sorted.

    Attributes:
        events: Usage events in offset order, corrections apart.
        corrections: Events that replace another.
        orders: Commands of people.
        shifts: Price fixes.
        internal: (place, kind) of other genuine records of the service: ticks, and what has no place here.
        bad: (place, what is wrong).
    """

    events: Part
    corrections: list[Correction] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    internal: list[tuple[int, str]] = field(default_factory=list)
    bad: list[tuple[int, BadRecord]] = field(default_factory=list)


class Sorter:
    """Sorts batches of one topic.

    Args:
        topic: Logical name, part of what signatures cover.
        secrets: Keys of internal records' signatures; the first one signs, all verify.
    """

    def __init__(self, topic: str, secrets: Sequence[bytes]) -> None:
        self.topic, self.secrets = topic, tuple(secrets)

    def sort(self, batch: Batch, schemas: Mapping[int, Any] | None = None) -> Intake:
        """Return the batch sorted; `schemas` are foreign Avro schemas by id, beside the bundled ones."""
        intake = Intake(events=NONE)
        single: list[int] = []
        forwards: list[int] = []
        special: list[int] = []
        if any(batch.headers):
            special = [i for i, headers in enumerate(batch.headers) if headers and not self._is_plain(headers)]
        for i in special:
            self._internal(i, batch, intake, single, forwards)
        parts, left = [], len(batch.values) - len(special)
        for read, form in reversed(FORMS) if _all_begin(batch.values[:1], OBJECT) else FORMS:
            if not left:
                break
            places, found = _of_form(batch.values, form, special)
            left -= len(found)
            if len(found) >= FEW:
                part, suspects = read(places, found)
                parts.append(part)
                single += suspects
            else:
                single += places.tolist()
            special += places.tolist() if left else ()
        if left:
            known = frozenset(special)
            single += [i for i in range(len(batch.values)) if i not in known]
        if single:
            parts.append(self._singly(single, frozenset(forwards), batch, schemas, intake))
        intake.events = concat(parts)
        return intake

    def _is_plain(self, headers: Headers) -> bool:
        return not any(name[:3] in ("sb-", "ce_") or name.lower() == "content-type" for name, _ in headers)

    def _internal(self, i: int, batch: Batch, intake: Intake, single: list[int], forwards: list[int]) -> None:
        kind = kind_of(batch.headers[i])
        if kind is None:
            single.append(i)
            return
        home = (batch.keys[i] or b"").decode(errors="replace")
        try:
            open_internal(kind, self.topic, batch.keys[i], batch.values[i], batch.headers[i], self.secrets)
            if kind == "command":
                intake.orders.append(Order(i, home, decode(Command, batch.values[i] or b"")))
                return
            if kind in ("delta", "delta_unplaced"):
                delta = decode(Delta, batch.values[i] or b"")
                intake.shifts.append(Shift(i, home, delta, kind == "delta_unplaced"))
                return
        except BadRecord as bad:
            intake.bad.append((i, bad))
            return
        if kind == "forward":
            single.append(i)
            forwards.append(i)
        else:
            intake.internal.append((i, kind))

    def _singly(
        self,
        places: list[int],
        forwards: frozenset[int],
        batch: Batch,
        schemas: Mapping[int, Any] | None,
        intake: Intake,
    ) -> Part:
        events: list[tuple[int, UsageEvent, str | None]] = []
        for i in sorted(places):
            value = batch.values[i]
            try:
                event = decode_usage(value, batch.headers[i], self._known(value, schemas))
            except BadRecord as bad:
                intake.bad.append((i, bad))
                continue
            owner = (batch.keys[i] or b"").decode() if i in forwards else None
            if event.replaces is not None:
                intake.corrections.append(Correction(i, event, event.replaces, owner))
                continue
            events.append((i, event, owner))
        return from_events(events)

    @staticmethod
    def _known(value: bytes | None, schemas: Mapping[int, Any] | None) -> Mapping[int, Any] | None:
        if schemas and value and value[0] == MAGIC and len(value) >= 5 and schema_id_of(value) in schemas:
            return schemas
        return None


def _of_form(
    values: Sequence[bytes | None], form: bytes, apart: list[int]
) -> tuple[NDArray[np.int64], Sequence[bytes]]:
    """Return the values that begin like `form`, without those set apart, and their places."""
    if not apart and _all_begin(values, form):
        return np.arange(len(values)), values
    known = frozenset(apart)
    places = [i for i, value in enumerate(values) if value is not None and i not in known and value.startswith(form)]
    return np.array(places, np.int64), [values[i] for i in places]  # type: ignore[misc]


def _all_begin(values: Sequence[bytes | None], form: bytes) -> TypeGuard[Sequence[bytes]]:
    try:
        return all(map(bytes.startswith, values, repeat(form)))  # type: ignore[arg-type]
    except TypeError:  # a record without a value
        return False


def places(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return offsets and record timestamps (epoch seconds) of a batch."""
    n = len(batch.offsets)
    return np.fromiter(batch.offsets, np.int64, n), np.fromiter(batch.timestamps_ms, np.int64, n) / 1_000
