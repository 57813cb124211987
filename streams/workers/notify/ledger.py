"""The ledger as rows of a changelog: of an action's rows the one of the highest turn holds, whoever wrote it.

A worker that was frozen and wakes up may write rows late. Its successor has read all its earlier rows and begins with
a higher term; where it had written none, the group's generation tells the two apart. So what a predecessor writes late
never stands against what its successor wrote; an alert that is let go leaves a row that says so, or it would come back.
"""

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Container, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, Protocol

import orjson

from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.ledger import KEEP_S, Entry
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import DAY_S
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.workers.notify.together import Together

HELD = "held/"
"""Before the key of an alert that is held."""
PINNED = "pinned/"
"""Before the key of an alert that is told at another partition."""
PINNED_S = 100.0 * DAY_S
"""That is known for longer than any alert is held, and its news are in the log."""
TERM_KEY = "term"
"""Row with the highest term of a partition: it outlives the entries, which are forgotten. It is no action's id."""
FORGOTTEN_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """Orders rows.

    Attributes:
        term: One more than that of any row of the partition its writer had read when it began.
        generation: The group's, in which it was written.
        number: Counts the writer's rows of the partition.
    """

    term: int
    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row; one that says nothing claims a term.

    Attributes:
        entry: How far an action has come.
        held: An alert.
        gone_at: When one was let go.
        pinned: At which partition an alert is told, and when that was last asked.
    """

    key: str
    turn: Turn
    entry: Entry | None
    held: Held | None = None
    gone_at: float | None = None
    pinned: tuple[int, float] | None = None

    @property
    def is_claim(self) -> bool:
        """Whether it says nothing but that its writer was there."""
        return self.entry is None and self.held is None and self.gone_at is None and self.pinned is None

    def has_expired(self, now: float) -> bool:
        """Tell whether no log can bring again by `now` what the row is about, nor any worker write of it late."""
        if self.pinned is not None:
            return self.pinned[1] + PINNED_S <= now
        at = self.entry.at if self.entry is not None else self.gone_at
        return at is not None and at + KEEP_S <= now

    @property
    def value(self) -> bytes:
        """The row as JSON."""
        turn, entry = self.turn, self.entry
        fields: dict[str, Any] = {"turn": [turn.term, turn.generation, turn.number]}
        if entry is not None:
            fields |= {"attempts": entry.attempts, "at": entry.at, "outcome": entry.outcome}
            fields |= {"error": entry.error, "response": entry.response}
            if entry.retry_at:
                fields |= {"retry_at": entry.retry_at, "in_doubt": entry.in_doubt}
        if self.held is not None:
            kept = {each.name: getattr(self.held, each.name) for each in dataclass_fields(Held)}
            fields["held"] = {**kept, "action": b64encode(encode(self.held.action)).decode()}
        if self.gone_at is not None:
            fields["gone_at"] = self.gone_at
        if self.pinned is not None:
            fields["pinned"] = self.pinned
        return orjson.dumps(fields)

    @classmethod
    def parse(cls, key: str, value: bytes) -> "LedgerRow":
        """Return the row that `value` wrote.

        Raises:
            ValueError: not such a row.
        """
        try:
            fields = orjson.loads(value)
            turn, held = Turn(*map(int, fields.pop("turn"))), fields.pop("held", None)
            if "gone_at" in fields:
                return cls(key, turn, None, gone_at=float(fields["gone_at"]))
            if "pinned" in fields:
                place, at = fields["pinned"]
                return cls(key, turn, None, pinned=(int(place), float(at)))
            if held is not None:
                action = decode(Action, b64decode(held["action"]))
                return cls(key, turn, None, Held(**{**held, "action": action}))
            return cls(key, turn, Entry(**fields) if fields else None)
        except (TypeError, KeyError, ValueError, BadRecord) as error:
            raise ValueError(f"ledger row {key!r} cannot be read: {error!r}: {value[:80]!r}") from None


class Changelog(Protocol):
    """Where rows are kept (streams/transport/store.py: RowLog)."""

    async def write(self, partition: int, rows: Sequence[LedgerRow]) -> None:
        """Return once all are acknowledged."""

    async def bury(self, partition: int) -> None:
        """Remove what other writers had of the rows that were written; return once that is acknowledged."""

    async def remove(self, partition: int, keys: Sequence[str]) -> None:
        """Take rows out; return once that is acknowledged."""


class Ledgers:
    """Takes recovered rows in and opens the ledgers of owned partitions (`Rows` of streams/transport/store.py)."""

    def __init__(self) -> None:
        self._found: dict[int, dict[tuple[str, str], LedgerRow]] = {}
        self._rows: dict[int, dict[str, LedgerRow]] = {}
        self._terms: dict[int, int] = {}
        self._ready: frozenset[int] = frozenset()

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        """Take a writer's row in; which of several holds is seen when the partition is opened."""
        row = LedgerRow.parse(key, value)
        self._terms[partition] = max(self._terms.get(partition, 0), row.turn.term)
        if not row.is_claim:
            self._found.setdefault(partition, {})[key, writer] = row

    def drop(self, partition: int, key: str, writer: str) -> None:
        """Drop a row that was removed."""
        self._found.get(partition, {}).pop((key, writer), None)

    def forget(self, partition: int, generation: int) -> None:
        """Drop a partition that went, or that is about to be read from its start."""
        for kept in (self._found, self._rows, self._terms):
            kept.pop(partition, None)
        self._ready -= {partition}

    def recovered(self, partitions: frozenset[int]) -> None:
        """Hear that all rows of the partitions are here."""
        self._ready = partitions

    def holding(self, but: Container[int]) -> list[int]:
        """Return the recovered partitions that hold alerts, but these: their owner has something to do."""
        return sorted(n for n in self._ready if n not in but and any(row.held is not None for row in self._of(n)))

    def _of(self, partition: int) -> Iterator[LedgerRow]:
        yield from self._rows.get(partition, {}).values()
        yield from self._found.get(partition, {}).values()

    def open(self, partition: int, generation: int, log: Changelog) -> "PartitionLedger":
        """Return the ledger of a partition for one generation of the group."""
        rows = self._rows.setdefault(partition, {})
        for row in self._found.pop(partition, {}).values():
            _keep(rows, row)
        return PartitionLedger(rows, partition, self._terms.get(partition, 0) + 1, generation, log)


class PartitionLedger:
    """The ledger of one partition in one generation: a `Ledger` whose rows are written by the batch."""

    def __init__(self, rows: dict[str, LedgerRow], partition: int, term: int, generation: int, log: Changelog) -> None:
        self._rows, self._partition, self._term, self._generation = rows, partition, term, generation
        self._log = log
        self._number = 0
        self._claimed = False
        self._kept = {key for key, row in rows.items() if row.held is not None}
        self._together: Together[LedgerRow] = Together(self._write)

    @property
    def partition(self) -> int:
        """Whose ledger it is."""
        return self._partition

    def get(self, action: str) -> Entry | None:
        """Return the entry of an action id."""
        row = self._rows.get(action)
        return row.entry if row is not None else None

    async def put(self, action: str, entry: Entry) -> None:
        """Keep an entry; return once the broker has it."""
        await self._together.put(LedgerRow(action, self._turn(), entry))

    def held(self) -> dict[str, Held]:
        """Return the alerts that are held, by key."""
        found = ((key.removeprefix(HELD), row.held) for key, row in self._rows.items())
        return {key: held for key, held in found if held is not None}

    def hold(self, key: str, held: Held) -> Awaitable[None]:
        """Keep an alert; what is returned completes once the broker has it."""
        self._kept.add(HELD + key)
        return self._together.put(LedgerRow(HELD + key, self._turn(), None, held))

    async def let_go(self, key: str, now: float) -> None:
        """Note that an alert is held no longer; return once the broker has that."""
        if HELD + key in self._kept:
            self._kept.remove(HELD + key)
            await self._together.put(LedgerRow(HELD + key, self._turn(), None, gone_at=now))

    def place(self, key: str) -> int | None:
        """Return the partition at which an alert is told, where that is another."""
        row = self._rows.get(PINNED + key)
        return row.pinned[0] if row is not None and row.pinned is not None else None

    async def pin(self, key: str, place: int, now: float) -> None:
        """Keep at which partition an alert is told; return once the broker has that."""
        row = self._rows.get(PINNED + key)
        if row is None or row.pinned is None or row.pinned[1] + DAY_S <= now:
            await self._together.put(LedgerRow(PINNED + key, self._turn(), None, pinned=(place, now)))

    async def expire(self, now: float) -> int:
        """Take out what no log can bring again by `now`; return how many actions that were."""
        old = [key for key, row in self._rows.items() if row.has_expired(now)]
        actions = sum(self._rows[key].entry is not None for key in old)
        for start in range(0, len(old), FORGOTTEN_AT_ONCE):
            some = old[start : start + FORGOTTEN_AT_ONCE]
            await self._claim()
            await self._log.remove(self._partition, some)
            for key in some:
                self._rows.pop(key, None)
        return actions

    async def _claim(self) -> None:
        if not self._claimed:
            await self._write([])

    async def _write(self, rows: Sequence[LedgerRow]) -> None:
        claim = [] if self._claimed else [LedgerRow(TERM_KEY, Turn(self._term, self._generation, 0), None)]
        await self._log.write(self._partition, [*claim, *rows])
        await self._log.bury(self._partition)
        self._claimed = True
        for row in rows:
            _keep(self._rows, row)

    def _turn(self) -> Turn:
        self._number += 1
        return Turn(self._term, self._generation, self._number)


def _keep(rows: dict[str, LedgerRow], row: LedgerRow) -> None:
    held = rows.get(row.key)
    if held is None or held.turn <= row.turn:
        rows[row.key] = row
