"""Deriving an action again: the engine over the log that it stands on, up to the record that it names."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Batch, Outcome


class Steps(Protocol):
    """An engine: of teams, or of the nodes above them."""

    def new_state(self, number: int, epoch: int) -> Any:
        """Return the state of a partition whose log begins."""

    def step(self, state: Any, batch: Batch) -> Outcome:
        """Apply a batch to a state; return what to send."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What became of it.

    Attributes:
        records: Read from the log.
        action: None when nothing of this id follows from them.
        differs: Fields in which it is another than the one that was sent.
    """

    records: int
    action: Action | None
    differs: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the log gives this action, and no other."""
        return self.action is not None and not self.differs


async def derive(
    batches: AsyncIterator[Batch], engine: Steps, wanted: Action, progress: Callable[[int], None] = lambda n: None
) -> Derived:
    """Step a partition's log from its beginning on; return what it gives for the action `wanted`.

    Args:
        batches: The log up to the action's record, from its first one on.
        progress: Called with the number of records read.
    """
    state, read = engine.new_state(wanted.partition, wanted.stamp.epoch), 0
    found: Action | None = None
    async for batch in batches:
        for record in engine.step(state, batch).records:
            if found is None and record.topic == ACTIONS.name and record.value is not None:
                action = decode(Action, record.value)
                found = action if action.id == wanted.id else None
        read += len(batch.offsets)
        progress(read)
    if found is None:
        return Derived(read, None)
    return Derived(
        read, found, tuple(f.name for f in fields(Action) if getattr(found, f.name) != getattr(wanted, f.name))
    )
