"""The ledger: what has been begun and what is done, by action id. Kept by the worker; here the port and a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from spendbrake.schemas.result import Outcome
from spendbrake.schemas.topics import ACTIONS, DAY_S

KEEP_S = float((ACTIONS.retention_s or 30 * DAY_S) + DAY_S)
"""An entry outlives its action in the log: none can be read again after its entry is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How far an action has come: an intent while `outcome` is None, then what became of it.

    Attributes:
        attempts: Tries begun.
        at: Wall clock of the last change, epoch seconds UTC.
        retry_at: Of an intent that is put off: when it is tried again; 0 of one that is under way.
        in_doubt: Of the same: whether the receiver may have the action.
        error: Why it failed.
        response: What the receiver said.
    """

    attempts: int
    at: float
    outcome: Outcome | None = None
    error: str | None = None
    response: Mapping[str, Any] = field(default_factory=dict)
    retry_at: float = 0.0
    in_doubt: bool = False


class Ledger(Protocol):
    """The table the worker keeps in a changelog, co-partitioned with its actions."""

    def get(self, action: str) -> Entry | None:
        """Return the entry of an action id."""

    async def put(self, action: str, entry: Entry) -> None:
        """Keep an entry; return once it is safe: the runner acts only then."""


class MemoryLedger:
    """A ledger that lasts as long as the process: for tests, and for what a worker holds of its changelog."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def get(self, action: str) -> Entry | None:
        """Return the entry of an action id."""
        return self.entries.get(action)

    async def put(self, action: str, entry: Entry) -> None:
        """Keep an entry."""
        self.entries[action] = entry

    def forget(self, now: float) -> list[str]:
        """Drop the entries whose actions the log has lost by `now`; return their ids."""
        old = [action for action, entry in self.entries.items() if entry.at + KEEP_S <= now]
        for action in old:
            del self.entries[action]
        return old
