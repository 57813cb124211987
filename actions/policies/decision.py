"""From an action of the effect `limits` to the decision that gateways read. Nothing else."""

from spendbrake.actions.policies.base import LIMITS
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Decision


def decision_of(action: Action) -> Decision:
    """Return the decision an action orders.

    Raises:
        ValueError: the action is of another effect, or in shadow mode and must not be carried out.
    """
    if action.effect != LIMITS or action.mode != "enforce":
        raise ValueError(f"action {action.id} is no decision: effect {action.effect!r}, mode {action.mode!r}")
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
        max_rps=action.params.get("max_rps"),
        burst=action.params.get("burst"),
        model=action.params.get("model"),
    )
