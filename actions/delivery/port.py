"""What delivery asks of an effect and of a place for dead letters. No implementation."""

from collections.abc import Mapping
from typing import Any, Protocol

from spendbrake.schemas.action import Action


class Effect(Protocol):
    """Carries out one kind of action.

    Attributes:
        name: As it stands in `Action.effect`.
        takes_ids: Whether the receiver drops what it has seen under the same id, so that sending twice is safe.
    """

    name: str
    takes_ids: bool

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Do it, and return what the receiver said, JSON-ready and without secrets.

        Raises:
            Retry: not now; try again.
            GiveUp: never with this action, or with this configuration.
            Superseded: the receiver holds something later.
        """

    async def find(self, action: Action) -> bool | None:
        """Say whether the receiver has the action already; None when it cannot be told.

        Raises:
            Retry: not now; ask again.
        """


class DeadLetters(Protocol):
    """Where actions go that could not be carried out."""

    async def bury(self, action: Action, reason: str) -> None:
        """Keep the action; return once it is safe."""


class Retry(Exception):
    """The receiver could not be reached, or said `later`.

    Attributes:
        reason: What went wrong, for people.
        after_s: Least seconds to wait, when the receiver named them.
        maybe_done: True when the receiver may have acted all the same (a time-out, a broken connection, a 500).
    """

    def __init__(self, reason: str, *, after_s: float | None = None, maybe_done: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s
        self.maybe_done = maybe_done


class GiveUp(Exception):
    """No attempt will succeed: a wrong token, a channel that does not exist, a receiver that is gone."""


class Stopped(Exception):
    """This process must do nothing more: what it was about to do may have been done by another."""


class Later(Exception):
    """An action is to be tried again at `at`, epoch seconds; the ledger knows, so nobody has to wait for it."""

    def __init__(self, at: float) -> None:
        super().__init__(f"to be tried again at {at:.0f}")
        self.at = at


class Superseded(Exception):
    """The receiver holds a later state; there is nothing left to do."""
