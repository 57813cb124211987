"""Whom a limit binds: the node or the key behind it, and which of its calls. No verdicts."""

from collections.abc import Sequence

from spendbrake.schemas.decision import Scope
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import Policy, ScopeRule

NON_PROD = "non-prod"
"""Stands in a rule's environments for every name in the file's `non_production`."""


def named_key(policy: Policy, finding: Finding) -> str | None:
    """Return the key that carries a finding's excess, if the policy binds keys and the finding names one."""
    if policy.target == "finding":
        return None
    key = finding.evidence.get("key")
    return key if isinstance(key, str) and key else None


def is_partial(policy: Policy) -> bool:
    """Tell whether a policy's limits bind a share of the keys only."""
    return policy.mode == "enforce" and policy.canary_percent is not None and policy.canary_percent < 100


def scope_of(rule: ScopeRule, non_production: Sequence[str]) -> Scope:
    """Return a rule's scope with `non-prod` replaced by the environments it stands for.

    Examples:
        >>> scope_of(ScopeRule(environment=("non-prod", "qa")), ("dev", "test")).text()
        'environment=dev,qa,test'
        >>> scope_of(ScopeRule(), ("dev",)).text()
        '*'
    """
    environment = rule.environment
    if environment is not None:
        names = [name for name in environment if name != NON_PROD]
        environment = tuple(sorted({*names, *(non_production if NON_PROD in environment else ())}))
    return Scope(environment=environment, models=rule.models)


def expanded(policy: Policy, non_production: Sequence[str]) -> Policy:
    """Return a policy whose condition has `non-prod` replaced by the environments it stands for."""
    names = scope_of(ScopeRule(environment=policy.when.environments), non_production).environment
    return policy.model_copy(update={"when": policy.when.model_copy(update={"environments": names})})


def scope_label(scope: Scope, non_production: Sequence[str]) -> str:
    """Return a scope in a word for people and webhooks.

    Examples:
        >>> scope_label(Scope(environment=("dev", "test")), ("test", "dev")), scope_label(Scope(), ("dev",))
        ('non-prod', 'all')
    """
    if scope == Scope():
        return "all"
    if scope.environment is not None and scope.models is None and set(scope.environment) == set(non_production):
        return NON_PROD
    return scope.text()
