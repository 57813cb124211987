"""Effect `limits`: puts decisions before the gateways. Limits are state, so no ledger: written twice is written once.

The store overwrites lower stamps only; neither a replay nor a frozen worker that wakes up can undo a later decision.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from spendbrake.actions.effects.base import Effect, GiveUp, Retry, Superseded
from spendbrake.actions.gateway.store import AsyncStore, StoreUnavailable, Written
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Decision

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
        outcomes: list[Mapping[str, Any]] = [{"outcome": "shadow"}] * len(actions)
        decisions: list[Decision] = []
        places: list[int] = []
        for place, action in enumerate(actions):
            if action.mode == "shadow":
                continue
            try:
                decision = decision_of(action)
                self._store.layout.decision_entries(decision)
            except ValueError as error:
                outcomes[place] = {"outcome": "failed", "error": str(error)}
            else:
                decisions.append(decision)
                places.append(place)
        if decisions:
            now = max(actions[place].time for place in places)
            try:
                words = await self._store.write_decisions(decisions, now=now)
            except StoreUnavailable as error:
                raise Retry(str(error), maybe_done=True) from error
            for place, word in zip(places, words, strict=True):
                outcomes[place] = {"outcome": _OUTCOMES[word], "write": word}
        return outcomes


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
