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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from chaos.books.recount import Expected, recount
from chaos.books.undisturbed import compare
from chaos.company import company
from chaos.faults import storm
from chaos.leases.holders import Holders
from chaos.leases.holders import judge as judge_leases
from chaos.report import Row, added, figures, markdown, table
from chaos.scene import BOT_TOKEN, HOOK_SECRET, PARTITIONS, Scene, Servers
from chaos.traffic import Traffic
from chaos.verdict import Verdict, heard, judge, refused
from servers.receivers import SlackServer, WebhookServer
from spendbrake.schemas.topics import USAGE

COST_OF_A_CALL = 9_000_000
"""About, nano-USD."""
READY_S, DRAIN_S, HEAL_S = 180.0, 600.0, 60.0
RESTORED = "partition restored"


@dataclass(frozen=True)
class Form:
    """How much, how fast and how hard.

    Attributes:
        calls: A seed; copies, corrections and poison come on top.
        rate: Calls a second, where the machine keeps up.
        faults: A seed, spread over the calls.
    """

    seeds: tuple[int, ...]
    calls: int
    rate: float
    faults: int


SHORT = Form((1,), 30_000, 300.0, 12)
LONG = Form((1, 2, 3), 1_570_000, 5_000.0, 52)
"""Five million records in sum. The third seed has detectors."""


@dataclass
class Report:
    """One seed.

    Attributes:
        events: Records that producers have put on the topic.
        holes: Chunks that did not join and were read again; those of a worker that was killed up to its last word.
        most_lag: Of a partition, records.
        stalls: Workers that stood still though awake, and where.
        leases: Caps spent by leases, and by how much the worst was passed.
    """

    seed: int
    events: int
    seconds: float
    kinds: dict[str, int]
    faults: dict[str, int]
    ended: list[str]
    holes: int
    most_lag: int
    stalls: list[str]
    leases: dict[str, Any]
    verdict: Verdict


def weather(scene: Scene, traffic: Traffic, form: Form, chance: random.Random, say: Callable[[str], None]) -> None:
    """Let fault after fault strike, at uneven places of the stream; one that finds nothing to strike is passed over."""
    faults = storm(chance)
    for number in range(form.faults):
        at = (number + chance.uniform(0.1, 0.9)) / form.faults * form.calls
        while traffic.is_alive() and traffic.sent.kinds["calls"] < at:
            scene.turn(0.2)
        while not (victim := (fault := next(faults)).strike(scene, chance)):
            scene.turn(0.2)
        scene.struck[fault.kind] += 1
        say(f"{traffic.sent.kinds['calls']:,} calls: {fault.kind}: {victim}")
    while traffic.is_alive() and traffic.sent.kinds["calls"] < form.calls:
        scene.turn(0.2)


def wait(scene: Scene, holds: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}\n{scene.logs()}"
        scene.turn(0.5)


def run(seed: int, form: Form, servers: Servers, directory: Path, say: Callable[[str], None]) -> Report:
    """Run one seed from an empty deployment to its verdict."""
    made = company(seed, form.calls * COST_OF_A_CALL, datetime.now(UTC).date())
    with SlackServer(token=BOT_TOKEN, page=200, now=time.time()) as slack, WebhookServer(HOOK_SECRET) as webhook:
        slack.retry_after = webhook.retry_after = "1"
        scene = Scene(servers, slack, webhook, made, directory)
        try:
            return _run(scene, form, say)
        finally:
            scene.close()


def _run(scene: Scene, form: Form, say: Callable[[str], None]) -> Report:
    scene.muster()
    wait(
        scene, lambda: all(RESTORED in worker.text() for worker in scene.crew["burn"]), READY_S, "the crew to be ready"
    )
    traffic = Traffic(scene.company, form.rate, PARTITIONS, scene.put)
    traffic.start()
    holders = Holders(scene, traffic, form.calls)
    holders.start()
    say("traffic")
    weather(scene, traffic, form, random.Random(f"storm {scene.company.seed}"), say)
    scene.calm()
    traffic.end()
    holders.last()
    wait(scene, lambda: not holders.is_alive(), READY_S, "leases to be spent")
    holders.end()
    sent = traffic.sent
    sent.records += holders.records
    say(f"{sent.records:,} records in {traffic.seconds:.0f} s; draining")
    stuck = scene.drain(DRAIN_S)
    say("recount")
    expected = recount(scene.company, {number: scene.stream(USAGE.name, number) for number in range(PARTITIONS)})
    verdict = judge(scene, expected, sent.reasons, sent.records)
    verdict.n_incidents = compare(verdict, scene)
    counted = {team: cost for (team, kind, _), cost in expected.cost.items() if kind == "team"}
    leases = judge_leases(verdict, holders.spent, counted, scene.gauges.most_overshoot)
    say(f"leases: {leases}")
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
        list(map(str, scene.ended)),
        scene.gauges.total("spendbrake_holes_total"),
        scene.gauges.most_lag,
        scene.stalls,
        leases,
        verdict,
    )
    verdict.sets("workers that nothing from outside has ended", [str(e) for e in scene.ended if not e.rightly], ())
    verdict.differ("workers that did not end well", {n: c for n, c in scene.retire().items() if c}, {})
    return report


def _gateways(scene: Scene, expected: Expected, verdict: Verdict, say: Callable[[str], None]) -> None:
    """See what gateways hear, and that they hear it again after Valkey has lost everything."""
    due = refused(scene, expected)
    for moment in ("", " after an emptied Valkey"):
        try:
            wait(scene, lambda: heard(scene, due) == due, HEAL_S, f"the Guard's decisions{moment}")
        except AssertionError:
            verdict.sets(f"Guard{moment}", heard(scene, due).items(), due.items())
        if not moment:
            scene.servers.valkey.empty()
    say(f"Guard: {dict(Counter(due.values()))}")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--seeds", help="by comma")
    parser.add_argument("--calls", type=int, help="a seed")
    parser.add_argument("--rate", type=float, help="calls a second")
    parser.add_argument("--faults", type=int, help="a seed")
    parser.add_argument("--json", type=Path, default=Path("build/chaos.json"), help="where figures go")
    parser.add_argument("--add", action="store_true", help="keep the other seeds that the file has: a run in pieces")
    parser.add_argument("--markdown", action="store_true", help="run nothing: print the figures that the file has")
    return parser.parse_args()


def main() -> int:
    """Run all seeds; 1 if anything differs."""
    given, console = options(), Console(width=160)
    if given.markdown:
        print(markdown(given.json))
        return 0
    base = LONG if given.long else SHORT
    seeds = tuple(int(seed) for seed in given.seeds.split(",")) if given.seeds else base.seeds
    form = Form(seeds, given.calls or base.calls, given.rate or base.rate, given.faults or base.faults)
    rows: list[Row] = []
    directory = Path(tempfile.mkdtemp(prefix="spendbrake-chaos-"))
    began, failed = time.monotonic(), False
    with Servers(directory) as servers:
        for seed in form.seeds:

            def say(words: str, seed: int = seed) -> None:
                console.print(f"{time.monotonic() - began:7.1f} s  seed {seed}: {words}", highlight=False, markup=False)

            report = run(seed, form, servers, directory / f"seed-{seed}", say)
            failed = failed or bool(report.verdict.problems)
            for line in (*report.ended, *report.stalls, *report.verdict.problems):
                say(line)
            rows.append(asdict(report))
            if given.add:
                rows = added(rows, given.json)
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(figures(rows), indent=1))
    console.print(table(rows))
    if failed:
        console.print(f"logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
