"""What the deployment has come to beside what it must come to: a line for each difference."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from chaos.books.recount import Expected, Series, Turn, limit_of
from chaos.company import ALL, HOOK, MODELS, OPS, TIERS, UNPLACED, UNPLACED_AT, WATCH, Company
from chaos.scene import Scene
from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.delivery.chain import verify
from spendbrake.actions.policies.base import LIFT, RESOLVED
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.state.partition import PartitionState

Notice = tuple[str, str, str, int, str, str]
"""Policy, node, tier, turn, rung, destination."""
SHOWN = 5


@dataclass
class Verdict:
    """What differs.

    Attributes:
        lost: Calls that no team was charged for.
        double: Calls charged more than once.
        duplicate_effects: Notifications that a receiver has under two ids, or twice where it takes no ids.
        unknown: Ids of those of which nobody can tell whether the receiver has them.
    """

    problems: list[str] = field(default_factory=list)
    lost: int = 0
    double: int = 0
    duplicate_effects: int = 0
    n_findings: int = 0
    n_incidents: int = 0
    n_effects: int = 0
    unknown: list[str] = field(default_factory=list)

    def differ(self, what: str, got: object, expected: object) -> None:
        if got != expected:
            self.problems.append(f"{what}: {got}, must be {expected}")

    def compare(self, what: str, got: Mapping[object, int], expected: Mapping[object, int]) -> None:
        """Note every name whose amount differs, a few of them in words."""
        wrong = {
            k: (got.get(k, 0), expected.get(k, 0)) for k in {*got, *expected} if got.get(k, 0) != expected.get(k, 0)
        }
        if wrong:
            some = ", ".join(f"{name}: {a} for {b}" for name, (a, b) in sorted(wrong.items(), key=str)[:SHOWN])
            self.problems.append(f"{what}: {len(wrong)} differ: {some}")

    def sets(self, what: str, got: Iterable[object], expected: Iterable[object]) -> None:
        """Note what is missing and what is too much."""
        a, b = set(got), set(expected)
        for word, some in (("missing", b - a), ("too much", a - b)):
            if some:
                self.problems.append(f"{what}: {len(some)} {word}: {sorted(some, key=str)[:SHOWN]}")


def judge(scene: Scene, expected: Expected, reasons: Counter[str], n_sent: int) -> Verdict:
    """Compare everything."""
    verdict = Verdict()
    verdict.differ("records on the topic", expected.n_records, n_sent)
    _money(verdict, scene, expected)
    _poison(verdict, scene, reasons)
    turns = _findings(verdict, scene, expected)
    _effects(verdict, scene, turns)
    return verdict


# --- money -----------------------------------------------------------------------------------------


def _money(verdict: Verdict, scene: Scene, expected: Expected) -> None:
    cost, calls, apart = series_of(scene.states())
    verdict.compare("cost of a series", cost, expected.cost)
    verdict.compare("calls of a series", calls, expected.calls)
    verdict.compare("calls apart", apart, expected.apart)
    verdict.compare("month to date of an ancestor", parents(scene), expected.above)
    for series in {s for s in {*calls, *expected.calls} if s[1] == "team"}:
        verdict.lost += max(0, expected.calls[series] - calls[series])
        verdict.double += max(0, calls[series] - expected.calls[series])


def series_of(states: Iterable[PartitionState]) -> tuple[Counter[Series], Counter[Series], Counter[str]]:
    """Return cost (nano-USD) and calls by series, and by team the calls that have no place."""
    cost: Counter[Series] = Counter()
    calls: Counter[Series] = Counter()
    apart: Counter[str] = Counter()
    for state in states:
        table, teams = state.series, state.teams
        for row, name in enumerate(table.names):
            series = (teams.names[name.team], name.kind, name.name)
            cost[series] += int(table.days.fields["cost"][row].sum())
            calls[series] += int(table.days.fields["calls"][row].sum())
        for row, team in enumerate(teams.names):
            apart[team] += int(teams.n_unplaced[row])
    return cost, calls, apart


def parents(scene: Scene) -> Counter[str]:
    """Return what the nodes above the teams have come to, from the rows of their state."""
    found: Counter[str] = Counter()
    for state in scene.parent_states():
        for node, parent in state.parents.items():
            for book in parent.totals.books.values():
                found[node] += sum(book.months.values()) + book.closed
    return found


def _poison(verdict: Verdict, scene: Scene, reasons: Counter[str]) -> None:
    origins = {record.header("sb-origin"): record.header("sb-reason") for record in scene.dead()}
    verdict.compare("dead letters", Counter(origins.values()), reasons)


# --- findings --------------------------------------------------------------------------------------


def _findings(verdict: Verdict, scene: Scene, expected: Expected) -> set[Turn]:
    """Compare findings; return all turns of tiers as they were told."""
    told: dict[str, Finding] = {}
    for finding in scene.findings():
        first = told.setdefault(finding.id, finding)
        if (first.node, first.tier, first.turn, first.state) != (
            finding.node,
            finding.tier,
            finding.turn,
            finding.state,
        ):
            verdict.problems.append(f"finding {finding.id} says two things: {first} and {finding}")
    verdict.n_findings = len(told)
    turns = [turn_of(finding) for finding in told.values() if finding.tier]
    verdict.differ("two findings of one turn", len(turns) - len(set(turns)), 0)
    periods = {each.period for each in told.values() if each.tier}
    verdict.differ("periods of findings", len(periods), 1)
    above = set(scene.company.budgets) - set(scene.company.teams)
    verdict.sets("findings of teams and below", {t for t in turns if t.node not in above}, expected.turns)
    verdict.sets(
        "who hears of them",
        {(t.node, t.tier, t.number, t.told) for t in turns if t.node not in above and t.number % 2},
        {(t.node, t.tier, t.number, t.told) for t in expected.turns if t.number % 2},
    )
    _alternate(verdict, {t for t in turns if t.node in above}, expected, scene.company)
    return set(turns)


def turn_of(finding: Finding) -> Turn:
    return Turn(finding.node, finding.tier or "", finding.turn, bool(finding.evidence.get("notify", True)))


def _alternate(verdict: Verdict, turns: set[Turn], expected: Expected, company: Company) -> None:
    """Above the teams totals come in steps: each tier opens and resolves by turns, and ends where the total is."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for turn in turns:
        numbers[turn.node, turn.tier].append(turn.number)
    for place, seen in numbers.items():
        verdict.differ(f"turns of {place}", sorted(seen), list(range(1, len(seen) + 1)))
    for node, spent in expected.above.items():
        for tier, share in TIERS.items():
            stands = len(numbers[node, tier]) % 2 == 1
            verdict.differ(f"{tier} of {node} stands", stands, spent >= limit_of(company.budgets[node], share))
        stands = len(numbers[node, UNPLACED]) % 2 == 1
        verdict.differ(f"{UNPLACED} of {node} stands", stands, expected.apart_above[node] >= UNPLACED_AT)


# --- effects ---------------------------------------------------------------------------------------


def notices(turns: Iterable[Turn]) -> Iterator[Notice]:
    """Yield the notifications that tiers must cause, by the company's policies."""
    turns = list(turns)
    told = {(turn.node, turn.tier, turn.number) for turn in turns if turn.told}
    for turn in turns:
        opens = turn.number % 2 == 1
        for destination in (OPS, HOOK, ALL):
            if turn.tier == "hard-cap":
                number, rung = (turn.number, "block") if opens else (turn.number - 1, LIFT)
                yield "cap", turn.node, turn.tier, number, rung, destination
            elif opens and turn.told:
                yield "tell", turn.node, turn.tier, turn.number, "say", destination
            elif not opens and (turn.node, turn.tier, turn.number - 1) in told:
                yield "tell", turn.node, turn.tier, turn.number - 1, RESOLVED, destination


def _effects(verdict: Verdict, scene: Scene, turns: set[Turn]) -> None:
    ordered = {action.id: action for action in scene.actions() if action.effect in ("slack", "webhook")}
    names: dict[Notice, list[str]] = defaultdict(list)
    for action in ordered.values():
        if action.policy == WATCH:
            continue
        names[notice_of(action)].append(action.id)
    twice = {notice: ids for notice, ids in names.items() if len(ids) > 1}
    verdict.differ("notifications under two ids", len(twice), 0)
    verdict.sets("notifications", names, notices(turns))
    results = [decode(Result, record.value or b"") for record in scene.read(RESULTS.name)]
    ends: dict[str, set[str]] = defaultdict(set)
    for result in results:
        ends[result.action].add(result.outcome)
    together = {name: ordered.pop(name) for name, action in list(ordered.items()) if action.destination == ALL}
    for kind in ("slack", "webhook"):
        verdict.problems += [f"chain of {kind}: {line}" for line in verify([r for r in results if r.effect == kind])[0]]
    due = {kind: {a.id for a in ordered.values() if a.effect == kind} for kind in ("slack", "webhook")}
    verdict.unknown = sorted(i for i in due["slack"] if ends[i] == {"unknown"})
    verdict.sets(
        "ends of notifications", [i for i in ordered if ends[i] == {"done"}], set(ordered) - set(verdict.unknown)
    )
    hooks, messages = set(scene.webhook.seen), Counter(scene.slack.action_ids("payments-ops"))
    verdict.sets("webhook", hooks, due["webhook"])
    verdict.sets("slack", {*messages, *verdict.unknown}, due["slack"])
    verdict.sets("slack, more than once", [i for i, n in messages.items() if n > 1], ())
    verdict.differ("webhooks with a wrong signature", scene.webhook.refused, 0)
    verdict.n_effects = len(hooks) + len(messages)
    received = {*hooks, *messages}
    more = sum(max(0, sum(i in received for i in ids) - 1) for ids in twice.values())
    verdict.duplicate_effects = more + sum(n - 1 for n in messages.values())
    _groups(verdict, scene, together, results)


def _groups(verdict: Verdict, scene: Scene, together: Mapping[str, Action], results: Iterable[Result]) -> None:
    """See that what is told in groups was told in one message each, or left out for a reason."""
    ends = {result.action: result for result in results if result.action in together}
    kinds = {(result.action, result.outcome) for result in results if result.action in together}
    outcomes = {name: result.outcome for name, result in ends.items()}
    verdict.sets("ends of notifications in groups", outcomes, together)
    verdict.sets("more than one end", [name for name, n in Counter(name for name, _ in kinds).items() if n > 1], ())
    by = {outcome: {name for name in ends if outcomes[name] == outcome} for outcome in set(outcomes.values())}
    verdict.sets("ways to end in a group", by, {*by} & {"done", "superseded", "muted", "unknown"})
    told, doubtful = ({ends[n].response.get("message", n) for n in by.get(o, ())} for o in ("done", "unknown"))
    messages = Counter(scene.slack.action_ids("finance"))
    verdict.sets("messages of groups", {*messages} - doubtful, told)
    verdict.duplicate_effects += sum(n - 1 for n in messages.values())
    heard = {alert_key(together[name]) for name in by.get("done", ()) if not is_over(together[name])}
    over = {name for name, action in together.items() if is_over(action) and alert_key(action) in heard}
    verdict.sets("ends that were told in groups", over - by.get("done", set()) - by.get("unknown", set()), ())
    verdict.unknown += sorted(by.get("unknown", ()))
    verdict.n_effects += len(messages)


def notice_of(action: Action) -> Notice:
    return action.policy, action.node, action.tier or "", action.turn, action.rung, action.destination


# --- the gateway -----------------------------------------------------------------------------------


def refused(scene: Scene, expected: Expected) -> dict[str, str]:
    """Return what a gateway must hear of each key that an event has named: `block`, `throttle` or `allow`."""
    company, found = scene.company, {}
    for team in company.teams:
        for key in [key for key in company.keys(team) if (team, "key", key) in expected.calls]:
            tiers = {
                tier
                for node in (key, team, *company.above(team))
                for tier in TIERS
                if (node, tier) in expected.standing
            }
            found[key] = "block" if "hard-cap" in tiers else "throttle" if "critical" in tiers else "allow"
    return found


def heard(scene: Scene, keys: Iterable[str]) -> dict[str, str]:
    """Return what a gateway hears of each key now; `stale` where its limits are not vouched for."""
    found = {}
    with scene.guard() as guard:
        for key in keys:
            told = guard.check(key, MODELS[0][1])
            verdict = "throttle" if told.policy == "brake" else told.verdict
            found[key] = verdict if told.marks == "fresh" else "stale"
    return found
