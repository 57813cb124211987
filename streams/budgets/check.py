"""What is wrong with a policy file that its model cannot see: references, paths of the tree, names used twice."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from decimal import Decimal

from spendbrake.schemas.policy import Limits, Node, PolicyFile
from spendbrake.schemas.usage import UNTAGGED
from spendbrake.streams.budgets.allocation.asof import AMOUNTS, as_of, currency_of
from spendbrake.streams.budgets.policies.ladders import of_policies
from spendbrake.streams.budgets.problems import Path, Problem, all_known, repeated, unknown
from spendbrake.streams.budgets.tree import KEY, PROJECT, names_of


def check(file: PolicyFile, detectors: Collection[str] | None = None) -> list[Problem]:
    """Return every problem of a file, in the order of its parts.

    Args:
        file: As its model took it.
        detectors: Names in the detector catalog; None leaves the names of detectors unchecked.
    """
    return [
        *_levels(file),
        *_tiers(file),
        *_nodes(file),
        *_amounts(file),
        *_names(file),
        *_defaults(file),
        *of_policies(file, detectors),
        *_prices(file),
        *_delivery(file),
    ]


def _levels(file: PolicyFile) -> Iterator[Problem]:
    yield from repeated(("levels",), "level", file.levels)
    if file.home not in file.levels:
        yield unknown(("home",), "level", file.home, file.levels)
        return
    for place, level in enumerate(file.levels[file.levels.index(file.home) + 1 :], file.levels.index(file.home) + 1):
        if level not in (PROJECT, KEY) and not any(node.level == level for node in file.nodes):
            message = f"{level!r} lies below the home level, and events name only teams, projects and keys"
            yield Problem(("levels", place), message, "warning")


def _tiers(file: PolicyFile) -> Iterator[Problem]:
    yield from repeated(("tiers",), "tier", [tier.name for tier in file.tiers], ("name",))
    yield from repeated(("burn_rates",), "burn rate", [rule.name for rule in file.burn_rates], ("name",))
    above = file.levels[: file.levels.index(file.home) + 1] if file.home in file.levels else file.levels
    for place, rule in enumerate(file.burn_rates):
        yield from all_known(("burn_rates", place, "levels"), "level of teams or above", rule.levels, above)
    for place, tier in enumerate(file.tiers):
        if tier.basis == "month_over_month" and tier.at <= 1:
            message = f"{tier.at} stands although spend did not rise; 1.2 is a rise of 20 %"
            yield Problem(("tiers", place, "at"), message, "warning")


def _nodes(file: PolicyFile) -> Iterator[Problem]:
    """Check that the nodes are one tree, whose paths cross the home level once."""
    nodes = {node.id: node for node in reversed(file.nodes)}
    yield from repeated(("nodes",), "id", [node.id for node in file.nodes], ("id",))
    yield from _roots(file)
    parents = {node.parent for node in file.nodes}
    default = file.defaults.get(file.home)
    hosts = {default.parent} if default is not None and default.parent is not None else set()
    for place, node in enumerate(file.nodes):
        path: Path = ("nodes", place)
        if node.id == UNTAGGED:
            yield Problem((*path, "id"), f"{UNTAGGED!r} is reserved; its limits stand under `untagged`")
        if node.level not in file.levels:
            yield unknown((*path, "level"), "level", node.level, file.levels)
            continue
        if node.parent is not None:
            yield from _parent(file, nodes, path, node)
        yield from _crossing(file, nodes, path, node, host=node.id in parents | hosts or node.parent is None)


def _roots(file: PolicyFile) -> Iterator[Problem]:
    roots = [(place, node) for place, node in enumerate(file.nodes) if node.parent is None]
    if not roots:
        yield Problem(("nodes",), "no root: one node has no parent")
    for place, node in roots[1:]:
        yield Problem(("nodes", place, "parent"), f"{node.id!r} has no parent, but {roots[0][1].id!r} is the root")
    for place, node in roots[:1]:
        if file.home in file.levels and node.level in file.levels[file.levels.index(file.home) :]:
            message = f"the root lies at {node.level!r}, but must lie above the home level {file.home!r}"
            yield Problem(("nodes", place, "level"), message)


def _parent(file: PolicyFile, nodes: dict[str, Node], path: Path, node: Node) -> Iterator[Problem]:
    above = nodes.get(node.parent or "")
    if above is None:
        yield unknown((*path, "parent"), "node", node.parent or "", nodes)
    elif node.id in _line(nodes, node):
        yield Problem((*path, "parent"), f"{node.id!r} lies below itself: {' -> '.join(_line(nodes, node))}")
    elif above.level in file.levels and file.levels.index(above.level) >= file.levels.index(node.level):
        message = f"{above.id!r} lies at {above.level!r}, which is not above {node.level!r}"
        yield Problem((*path, "parent"), message)


def _crossing(file: PolicyFile, nodes: dict[str, Node], path: Path, node: Node, *, host: bool) -> Iterator[Problem]:
    if file.home not in file.levels or node.parent is None:
        return
    home = file.levels.index(file.home)
    depth = file.levels.index(node.level)
    line = _line(nodes, node)
    whole = bool(line) and line[-1] in nodes and nodes[line[-1]].parent is None
    if depth > home and whole and not any(nodes[each].level == file.home for each in line):
        yield Problem((*path, "parent"), f"no node of the home level {file.home!r} above {node.id!r}")
    elif depth < home and not host:
        yield Problem(path, f"{node.id!r} has no {file.home} below it, so no money can reach it", "warning")


def _line(nodes: dict[str, Node], node: Node) -> list[str]:
    """Return the ids from the parent up to the root, to an unknown one, or round a cycle once."""
    line: list[str] = []
    parent = node.parent
    while parent is not None and parent not in line:
        line.append(parent)
        parent = nodes[parent].parent if parent in nodes else None
    return line


def _limits(file: PolicyFile) -> Iterator[tuple[Path, Limits]]:
    for place, node in enumerate(file.nodes):
        yield ("nodes", place), node
    for level, default in file.defaults.items():
        yield ("defaults", level), default
    yield ("untagged",), file.untagged


def _amounts(file: PolicyFile) -> Iterator[Problem]:
    tiers, nodes = {tier.name for tier in file.tiers}, {node.id: node for node in file.nodes}
    for path, limits in _limits(file):
        yield from all_known((*path, "tiers"), "tier", limits.tiers, tiers)
        yield from _currency(file, nodes, path, limits)
        yield from _use(file, path, limits)
        for end, unit in (("_usd", " USD"), ("", "")):
            budget, cap = getattr(limits, f"monthly_budget{end}"), getattr(limits, f"monthly_allocation{end}")
            if budget is not None and cap is not None and cap < budget:
                message = f"the hard cap of {cap}{unit} is below the budget of {budget}{unit}"
                yield Problem((*path, f"monthly_allocation{end}"), message)
        if (limits.reserve_usd is not None or limits.reserve is not None) and not _above_home(file, limits):
            name = "reserve_usd" if limits.reserve is None else "reserve"
            yield Problem((*path, name), f"a reserve is kept above the home level {file.home!r}")
    held = as_of(file, float("-inf")).nodes
    below: defaultdict[str, Decimal] = defaultdict(Decimal)
    for node in held:
        below[node.parent or ""] += _cap(node) or Decimal(0)
    for place, node in enumerate(held):
        own = _cap(node)
        if own is not None and below[node.id] > own:
            message = f"the nodes below {node.id!r} may spend {below[node.id]} USD, it itself {own} USD"
            yield Problem(("nodes", place), message, "warning")


def _use(file: PolicyFile, path: Path, limits: Limits) -> Iterator[Problem]:
    """Warn of lists that nothing is held against: below the home level models and environments are not told apart."""
    level = limits.level if isinstance(limits, Node) else str(path[-1])
    if {level, file.home} <= set(file.levels) and file.levels.index(level) > file.levels.index(file.home):
        for name in ("approved_models", "environments"):
            if getattr(limits, name) is not None:
                message = f"not held against the calls of a {level}: give the list to its {file.home}"
                yield Problem((*path, name), message, "warning")


def _currency(file: PolicyFile, nodes: dict[str, Node], path: Path, limits: Limits) -> Iterator[Problem]:
    """Check that amounts in a currency have one, and are no more in USD than may be."""
    currency = limits.currency
    if currency is None and isinstance(limits, Node):
        currency = currency_of(nodes, limits)
    elif currency is None and path in (("untagged",), ("defaults", file.home)):
        default = file.defaults.get(file.home)
        root = next((node for node in file.nodes if node.parent is None), None)
        currency = currency_of(nodes, nodes.get((default.parent if default else None) or "", root))
    for name in AMOUNTS:
        amount = getattr(limits, name)
        if amount is not None and currency is None:
            yield Problem((*path, name), f"in which currency? None is given here or above: say {name}_usd for USD")
        elif amount is not None and currency is not None and amount * max(r.usd for r in currency.rates) > MOST_USD:
            yield Problem((*path, name), f"{amount} {currency.name} is more than {MOST_USD} USD")


def _above_home(file: PolicyFile, limits: Limits) -> bool:
    return (
        isinstance(limits, Node)
        and {limits.level, file.home} <= set(file.levels)
        and file.levels.index(limits.level) < file.levels.index(file.home)
    )


def _cap(limits: Limits) -> Decimal | None:
    return limits.monthly_budget_usd if limits.monthly_allocation_usd is None else limits.monthly_allocation_usd


MOST_USD = Decimal(10) ** 9


def _names(file: PolicyFile) -> Iterator[Problem]:
    """Check that every name an event may use means one node."""
    nodes = {node.id: node for node in reversed(file.nodes)}
    taken: dict[tuple[str, str, str], str] = {}
    for place, node in enumerate(file.nodes):
        if node.level not in (file.home, PROJECT, KEY):
            continue
        line = [node.id, *_line(nodes, node)]
        home = next((each for each in line if each in nodes and nodes[each].level == file.home), "")
        for name in sorted(names_of(node, home)):
            other = taken.setdefault((node.level, "" if home == node.id else home, name), node.id)
            if other != node.id:
                yield Problem(("nodes", place), f"events that name the {node.level} {name!r} also mean {other!r}")
            if name == UNTAGGED != node.id and node.level == file.home:
                yield Problem(("nodes", place), f"{UNTAGGED!r} is reserved; its limits stand under `untagged`")


def _defaults(file: PolicyFile) -> Iterator[Problem]:
    nodes = {node.id: node for node in file.nodes}
    home = file.levels.index(file.home) if file.home in file.levels else 0
    for level, default in file.defaults.items():
        path: Path = ("defaults", level)
        if level not in file.levels:
            yield unknown(path, "level", level, file.levels)
        elif level not in (file.home, PROJECT, KEY) or file.levels.index(level) < home:
            yield Problem(path, f"events name no {level}, so no unlisted one can be")
        if default.parent is None:
            continue
        above = nodes.get(default.parent)
        if level != file.home:
            yield Problem((*path, "parent"), f"only {file.home!r} has one: an unlisted {level} hangs below its team")
        elif above is None:
            yield unknown((*path, "parent"), "node", default.parent, nodes)
        elif above.level in file.levels and file.levels.index(above.level) >= home:
            yield Problem((*path, "parent"), f"{above.id!r} lies at {above.level!r}, not above {file.home!r}")


def _delivery(file: PolicyFile) -> Iterator[Problem]:
    rule = file.delivery.escalation
    if rule is not None and rule.to not in file.destinations:
        yield unknown(("delivery", "escalation", "to"), "destination", rule.to, file.destinations)
    for place, hours in enumerate(file.delivery.quiet_hours):
        path: Path = ("delivery", "quiet_hours", place, "destinations")
        yield from all_known(path, "destination", hours.destinations, file.destinations)


def _prices(file: PolicyFile) -> Iterator[Problem]:
    own = Counter(
        (each.provider.lower().strip(), each.model.lower().strip(), each.valid_from) for each in file.prices.overrides
    )
    for place, each in enumerate(file.prices.overrides):
        if own[each.provider.lower().strip(), each.model.lower().strip(), each.valid_from] > 1:
            path: Path = ("prices", "overrides", place)
            yield Problem(path, f"{each.provider} {each.model} has two prices from the same moment on")
