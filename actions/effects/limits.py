"""Effect `limits`: puts decisions before the gateways. Limits are state, so no ledger: written twice is written once.

The store overwrites lower stamps only; neither a replay nor a frozen worker that wakes up can undo a later decision.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from spendbrake.actions.effects.base import Effect, GiveUp, Retry, Superseded
from spendbrake.actions.gateway.contract import Entry, Layout
from spendbrake.actions.gateway.store import AsyncStore, StoreUnavailable, Written
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Decision

Built: TypeAlias = tuple[Action, tuple[Entry, ...]]
"""An action, and what it puts where."""
_OUTCOMES: dict[Written, str] = {"written": "done", "same": "done", "superseded": "superseded"}


class Limits(Effect):
    """Carries out actions of effect `limits` on a store of decisions."""

    name = "limits"
    takes_ids = True

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Write one decision; a shadow action is answered and not written.

        Raises:
            GiveUp: the action is no decision a gateway could obey; the message names the field.
            Superseded: a later decision stands.
            Retry: Redis failed.
        """
        (outcome,) = await self.carry_out_many([action])
        if outcome["outcome"] == "failed":
            raise GiveUp(outcome["error"])
        if outcome["outcome"] == "superseded":
            raise Superseded("a later decision stands")
        return outcome

    async def find(self, action: Action) -> bool | None:
        """Return None: writing again tells as much as asking."""
        return None

    async def carry_out_many(self, actions: Sequence[Action]) -> list[Mapping[str, Any]]:
        """Write a batch; return an outcome an action, in order. A bad one fails alone.

        Outcomes are those of a Result: done, shadow, superseded, or failed with `error`.

        Raises:
            Retry: Redis failed; the whole batch may be repeated.
        """
        outcomes: list[Mapping[str, Any]] = []
        built: list[Built] = []
        places: list[int] = []
        for place, action in enumerate(actions):
            try:
                built.append((action, entries_of(action, self._store.layout)))
            except ValueError as error:
                outcomes.append({"outcome": "failed", "error": str(error)})
            else:
                outcomes.append({})
                places.append(place)
        for place, outcome in zip(places, await self.write(built), strict=True):
            outcomes[place] = outcome
        return outcomes

    async def write(self, built: Sequence[Built]) -> list[Mapping[str, Any]]:
        """Write actions whose entries are built already; return an outcome an action, in order, as `carry_out_many`.

        Raises:
            Retry: Redis failed; the whole batch may be repeated.
        """
        earnest = [(action, entries) for action, entries in built if action.mode != "shadow"]
        words: list[Written] = []
        if earnest:
            now = max(action.time for action, _ in earnest)
            try:
                words = await self._store.write([entries for _, entries in earnest], now)
            except StoreUnavailable as error:
                raise Retry(str(error), maybe_done=True) from error
        told = iter(words)
        return [
            {"outcome": "shadow"}
            if action.mode == "shadow"
            else {"outcome": _OUTCOMES[word := next(told)], "write": word}
            for action, _ in built
        ]


def entries_of(action: Action, layout: Layout) -> tuple[Entry, ...]:
    """Return what an action of effect `limits` puts where; nothing in shadow.

    Raises:
        ValueError: it is no decision a gateway could obey; the message names the field.
    """
    return () if action.mode == "shadow" else layout.decision_entries(decision_of(action))


def decision_of(action: Action) -> Decision:
    """Return the decision an action of effect `limits` orders.

    Raises:
        ValueError: a parameter of the wrong type.
    """
    return Decision(
        node=action.node,
        scope=action.scope,
        policy=action.policy,
        verdict=action.verdict,
        stamp=action.stamp,
        partition=action.partition,
        code=action.code,
        reason=action.reason,
        action_id=action.id,
        expires_at=action.expires_at,
        reset_at=action.reset_at,
        max_rps=_parameter(action, "max_rps", int | float),
        burst=_parameter(action, "burst", int),
        model=_parameter(action, "model", str),
        percent=_parameter(action, "percent", int | float),
    )


def _parameter(action: Action, name: str, kind: Any) -> Any:
    value = action.params.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise ValueError(f"action {action.id}: params.{name}: {value!r} is not of the right type")
    return value
