"""Policies that name what there is not, and ladders that would do other than they seem to."""

from collections.abc import Collection, Iterator

from spendbrake.actions.policies.base import ANY, RESERVED
from spendbrake.actions.policies.target import scope_of
from spendbrake.schemas.decision import VERDICTS
from spendbrake.schemas.finding import BURN_RATE, COMMAND
from spendbrake.schemas.policy import Limit, Policy, PolicyFile
from spendbrake.streams.budgets.policies.routes import approved, of_routes
from spendbrake.streams.budgets.problems import Path, Problem, all_known, repeated

NAMES_ENVIRONMENT = "dev_on_prod"
"""The detector whose findings say in which environment."""


def of_policies(file: PolicyFile, detectors: Collection[str] | None) -> Iterator[Problem]:
    """Yield the problems of all policies of a file."""
    yield from repeated(("policies",), "policy", [policy.name for policy in file.policies], ("name",))
    tiers, lists = [tier.name for tier in file.tiers], approved(file)
    for place, policy in enumerate(file.policies):
        path: Path = ("policies", place)
        when: Path = (*path, "when")
        yield from all_known((*when, "tiers"), "tier", policy.when.tiers, tiers)
        yield from all_known((*when, "levels"), "level", policy.when.levels, file.levels)
        if detectors is not None:
            known = {*detectors, ANY, COMMAND, BURN_RATE}
            yield from all_known((*when, "detectors"), "detector", policy.when.detectors, known)
        yield from _never(file, when, policy)
        yield from _canary((*path, "canary_percent"), policy)
        if policy.rollout and (policy.canary_percent or 100) >= policy.rollout[0].percent:
            message = f"begins with a canary_percent of less than {policy.rollout[0].percent:g}"
            yield Problem((*path, "rollout"), message)
        yield from _rungs(file, (*path, "rungs"), policy)
        for number, rung in enumerate(policy.rungs):
            if rung.limit is not None and rung.limit.verdict == "downgrade":
                yield from of_routes(lists, (*path, "rungs", number, "limit"), rung.limit)


def _never(file: PolicyFile, path: Path, policy: Policy) -> Iterator[Problem]:
    """Warn of conditions that no finding meets."""
    when, of_tiers = policy.when, [tier for tier in file.tiers if tier.name in (policy.when.tiers or ())]
    severities = {tier.severity for tier in of_tiers}
    if severities and not when.detectors and not severities & set(when.severities or severities):
        has = ", ".join(sorted(severities))
        yield Problem((*path, "severities"), f"answers nothing: its tiers are {has}", "warning")
    if when.environments is not None and not {ANY, NAMES_ENVIRONMENT} & set(when.detectors or ()):
        message = f"answers nothing: only findings of {NAMES_ENVIRONMENT} name an environment; give rungs a scope"
        yield Problem((*path, "environments"), message, "warning")


def _canary(path: Path, policy: Policy) -> Iterator[Problem]:
    if policy.canary_percent is not None and policy.mode == "shadow":
        yield Problem(path, "a policy in shadow binds no keys: give it a share with `mode: enforce`")
    elif policy.canary_percent is not None and all(rung.limit is None for rung in policy.rungs):
        yield Problem(path, "none of its rungs has a limit, so there is nothing to roll out", "warning")


def _rungs(file: PolicyFile, path: Path, policy: Policy) -> Iterator[Problem]:
    yield from repeated(path, "rung", [rung.name for rung in policy.rungs], ("name",))
    strictest: dict[str, tuple[tuple[int, float], str]] = {}
    for place, rung in enumerate(policy.rungs):
        if rung.name in RESERVED:
            yield Problem((*path, place, "name"), f"{rung.name!r} is reserved")
        yield from all_known((*path, place, "notify"), "destination", rung.notify, file.destinations)
        if place == 0 and rung.after_s:
            yield Problem((*path, 0, "after_s"), "the first rung is climbed at once: this is not waited for", "warning")
        for limit in rung.limit.parts() if rung.limit is not None else ():
            scope, strict = scope_of(limit.scope, file.non_production).text(), _strictness(limit)
            before, name = strictest.get(scope, (strict, rung.name))
            if strict < before:
                message = f"milder than rung {name!r} of the same scope, and takes its place"
                yield Problem((*path, place, "limit"), message, "warning")
            strictest[scope] = max((before, name), (strict, rung.name))


def _strictness(limit: Limit) -> tuple[int, float]:
    return VERDICTS.index(limit.verdict), -(limit.max_rps or 0.0)
