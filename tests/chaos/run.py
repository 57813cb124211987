"""Chaos: real Kafka, real Valkey, real workers, and everything that goes wrong; then a recount of what was produced.

`python -m chaos.run` (with tests/ on the path) is the short form; `--long` the long one, `--seeds 4,5` for others.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.company import company
from chaos.faults import Fault, storm
from chaos.recount import Expected, recount
from chaos.scene import BOT_TOKEN, HOOK_SECRET, PARTITIONS, Scene, Servers
from chaos.traffic import Traffic
from chaos.verdict import Verdict, heard, judge, refused
from servers.receivers import SlackServer, WebhookServer
from spendbrake.schemas.topics import USAGE

COST_OF_A_CALL = 9_000_000
"""About, nano-USD."""
READY_S, DRAIN_S, HEAL_S = 120.0, 300.0, 60.0
RESTORED = "partition restored"


@dataclass(frozen=True)
class Form:
    """How long and how hard.

    Attributes:
        rate: Calls a second.
        every_s: From one fault to the next, about.
    """

    seeds: tuple[int, ...]
    rate: float
    faults: int
    every_s: float


SHORT = Form((1,), 300.0, 12, 7.0)
LONG = Form((1, 2, 3), 5_000.0, 55, 6.5)


@dataclass
class Report:
    """One seed.

    Attributes:
        events: Records that producers have put on the topic.
        holes: Chunks that did not join and were read again; those of a worker that was killed up to its last word.
        most_lag: Of a partition, records.
    """

    seed: int
    events: int
    seconds: float
    kinds: dict[str, int]
    faults: dict[str, int]
    ended: list[str]
    holes: int
    most_lag: int
    verdict: Verdict


def weather(
    scene: Scene, faults: Sequence[Fault], every_s: float, chance: random.Random, say: Callable[[str], None]
) -> None:
    """Let fault after fault strike, at uneven times; one that finds nothing to strike is passed over."""
    for fault in faults:
        scene.turn(chance.uniform(0.3, 1.7) * every_s)
        struck = fault.strike(scene, chance)
        scene.struck[fault.kind] += struck
        say(f"{fault.kind}{'' if struck else ': nothing to strike'}")


def wait(scene: Scene, holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}\n{scene.logs()}"
        scene.turn(0.5)


def run(seed: int, form: Form, servers: Servers, directory: Path, say: Callable[[str], None]) -> Report:
    """Run one seed from an empty deployment to its verdict."""
    chance = random.Random(f"storm {seed}")
    faults = storm(chance, form.faults)
    spend = int(form.rate * form.every_s * len(faults) * COST_OF_A_CALL)
    made = company(seed, spend, datetime.now(UTC).date())
    with SlackServer(token=BOT_TOKEN, page=200, now=time.time()) as slack, WebhookServer(HOOK_SECRET) as webhook:
        slack.retry_after = webhook.retry_after = "1"
        scene = Scene(servers, slack, webhook, made, directory)
        try:
            return _run(scene, form, faults, chance, say)
        finally:
            scene.close()


def _run(
    scene: Scene, form: Form, faults: Sequence[Fault], chance: random.Random, say: Callable[[str], None]
) -> Report:
    scene.muster()
    wait(
        scene, lambda: all(RESTORED in worker.text() for worker in scene.crew["burn"]), READY_S, "the crew to be ready"
    )
    traffic = Traffic(scene.company, form.rate, PARTITIONS, scene.put)
    traffic.start()
    say("traffic")
    weather(scene, faults, form.every_s, chance, say)
    scene.calm()
    traffic.end()
    sent = traffic.sent
    say(f"{sent.records:,} records in {traffic.seconds:.0f} s; draining")
    stuck = scene.drain(DRAIN_S)
    say("recount")
    expected = recount(scene.company, {number: scene.stream(USAGE.name, number) for number in range(PARTITIONS)})
    verdict = judge(scene, expected, sent.reasons, sent.records)
    verdict.differ("what is not carried out", stuck, "")
    _gateways(scene, expected, verdict, say)
    verdict.differ("workers that are not well", scene.gauges.ill(w for crew in scene.crew.values() for w in crew), {})
    scene.gauges.look(worker for crew in scene.crew.values() for worker in crew)
    report = Report(
        scene.company.seed,
        sent.records,
        traffic.seconds,
        dict(sent.kinds),
        dict(scene.struck),
        [f"{each.worker}: {each.code}: {each.words}" for each in scene.ended],
        scene.gauges.total("spendbrake_holes_total"),
        scene.gauges.most_lag,
        verdict,
    )
    verdict.differ("workers that did not end well", {n: c for n, c in scene.retire().items() if c}, {})
    return report


def _gateways(scene: Scene, expected: Expected, verdict: Verdict, say: Callable[[str], None]) -> None:
    """See what gateways hear, and that they hear it again after Valkey has lost everything."""
    due = refused(scene, expected)
    for moment in ("", " after an emptied Valkey"):
        try:
            wait(scene, lambda: heard(scene) == due, HEAL_S, f"the Guard's decisions{moment}")
        except AssertionError:
            verdict.sets(f"Guard{moment}", heard(scene).items(), due.items())
        if not moment:
            scene.servers.valkey.empty()
    say(f"Guard: {dict(Counter(due.values()))}")


# --- reporting -------------------------------------------------------------------------------------


def figures(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the figures for machines."""
    return {
        "faults": sum(sum(report.faults.values()) for report in reports),
        "fault_kinds": dict(sum((Counter(report.faults) for report in reports), Counter())),
        "events": sum(report.events for report in reports),
        "lost": sum(report.verdict.lost for report in reports),
        "double": sum(report.verdict.double for report in reports),
        "duplicate_effects": sum(report.verdict.duplicate_effects for report in reports),
        "problems": sum(len(report.verdict.problems) for report in reports),
        "seeds": [asdict(report) for report in reports],
    }


def table(reports: Sequence[Report]) -> Table:
    """Return the figures for people."""
    shown = Table(title="chaos")
    names = (
        "seed",
        "records",
        "a second",
        "faults",
        "kinds",
        "findings",
        "effects",
        "unknown",
        "holes",
        "lost",
        "double",
    )
    for name in (*names, "duplicate effects", "other differences"):
        shown.add_column(name, justify="right")
    for report in reports:
        verdict = report.verdict
        values = (
            report.seed, f"{report.events:,}", f"{report.events / report.seconds:,.0f}", sum(report.faults.values()),
            len(report.faults), verdict.n_findings, verdict.n_effects, len(verdict.unknown), report.holes, verdict.lost,
            verdict.double, verdict.duplicate_effects, len(verdict.problems),
        )  # fmt: skip
        shown.add_row(*map(str, values))
    return shown


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--seeds", help="by comma")
    parser.add_argument("--rate", type=float, help="calls a second")
    parser.add_argument("--faults", type=int, help="a seed")
    parser.add_argument("--every", type=float, help="seconds from one fault to the next, about")
    parser.add_argument("--json", type=Path, default=Path("build/chaos.json"), help="where figures go")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that went well, too")
    return parser.parse_args()


def main() -> int:
    """Run all seeds; 1 if anything differs."""
    given, console = options(), Console(width=160)
    base = LONG if given.long else SHORT
    seeds = tuple(int(seed) for seed in given.seeds.split(",")) if given.seeds else base.seeds
    form = Form(seeds, given.rate or base.rate, given.faults or base.faults, given.every or base.every_s)
    directory = Path(tempfile.mkdtemp(prefix="spendbrake-chaos-"))
    reports: list[Report] = []
    began = time.monotonic()
    with Servers(directory) as servers:
        for seed in form.seeds:

            def say(words: str, seed: int = seed) -> None:
                console.print(f"{time.monotonic() - began:7.1f} s  seed {seed}: {words}", highlight=False)

            reports.append(run(seed, form, servers, directory / f"seed-{seed}", say))
            for problem in reports[-1].verdict.problems:
                say(problem)
            for line in reports[-1].ended:
                say(f"ended by itself: {line}")
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(figures(reports), indent=1))
    console.print(table(reports))
    if any(report.verdict.problems for report in reports):
        console.print(f"logs: {directory}")
        return 1
    if not given.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
