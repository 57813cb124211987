"""Published incidents over real tenants, through `spendbrake replay`: money saved against false alarms.

`python tests/bench/detection/incidents.py TOOL` takes a builder of data sets (`TOOL build OUT --seed N` writes
events.jsonl and labels.json, `TOOL score OUT FINDINGS` judges). What the detectors measure is recorded in the replay;
the panel then judges it along a curve of strictness, and 50 times with the constants of gate, floors, records and
fusion moved by chance. Writes build/bench-incidents.json.
"""

import argparse
import json
import pickle
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection.saved import judge
from detection.tape import Recording, Tape, bare, play, run
from machine import BUILD, machine
from rich.console import Console
from rich.table import Table

from spendbrake.detectors.base import AmountDetector
from spendbrake.detectors.catalog import detectors
from spendbrake.detectors.gate import GateParams
from spendbrake.detectors.panel import Panel
from spendbrake.detectors.series.fusion import FusionParams
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Reading
from spendbrake.streams.cli.base import spare_the_loop
from spendbrake.streams.cli.replay import replay
from spendbrake.streams.engine.rules import book

SEEDS = (1, 2, 3)
PERTURBATIONS = 50
SPREAD = 0.25
STRICTNESS = (0.35, 0.6, 0.8, 1.0, 1.3, 1.8, 2.6, 4.0)
"""Times the floors and the distance to the record, for the curve."""
FLOORS = ("floor_usd", "floor_days", "other_floor_days")
GATE = ("usual_fraction", "alarm_memory_s", "alarm_score", "alarm_money", "alarm_fact", "youth")
FUSION = ("gate", "budget", "memory", "burst", "alarm_weight", "holds_s")
LOST = 0.5
"""An incident of which less than this was saved is shown."""


@dataclass(frozen=True)
class Job:
    """Runs of the panel over what one replay has recorded, one for each set of parameters."""

    folder: Path
    params: Sequence[Mapping[str, Any]]


@contextmanager
def recorded() -> Iterator[Recording]:
    """Note what detectors are shown, and what they measure, while engines run that begin under it."""
    made, known = Recording(), book.Panel
    book.Panel = made  # type: ignore[assignment, misc]
    try:
        yield made
    finally:
        book.Panel = known  # type: ignore[misc]


def build(job: tuple[Path, Path, int]) -> dict[str, Any]:
    """Build a data set, replay it by the command users have, and have the tool judge what was found."""
    tool, folder, seed = job
    subprocess.run([sys.executable, tool, "build", folder, "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL)
    with recorded() as made:
        replay(folder / "events.jsonl", None, folder / "findings.jsonl", None)
    (folder / "events.jsonl").unlink()
    told = [json.loads(line) for line in (folder / "findings.jsonl").open()]
    row = asdict(judge(json.loads((folder / "labels.json").read_text()), [Finding(**each) for each in told]))
    told_by_tool = scored(tool, folder)
    if abs(told_by_tool["saved"] - row["saved"]) > 6e-4 or told_by_tool["alarms"] != sum(row["false_by"].values()):
        raise SystemExit(f"seed {seed}: {tool.name} says {told_by_tool}, detection/saved.py {row}")
    tape = Tape(bare(made.shown), {team: its.tape for team, its in made.senses.items()})
    (folder / "tape.pickle").write_bytes(pickle.dumps(tape, pickle.HIGHEST_PROTOCOL))
    cost = measured(made.shown) if seed == SEEDS[0] else {}
    return {"seed": seed, "compiled": machine()["compiled"], **row, **cost, "tool": told_by_tool["text"]}


def scored(tool: Path, folder: Path) -> dict[str, Any]:
    """Return what the tool says of the findings."""
    command = [sys.executable, tool, "score", folder, folder / "findings.jsonl"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    total = re.search(r"saved ([0-9.]+)%.*false alarms ([0-9]+) ", text)
    if total is None:
        raise SystemExit(f"{tool.name} told no total:\n{text}")
    return {"saved": float(total[1]) / 100.0, "alarms": int(total[2]), "text": text.splitlines()}


def measured(readings: Sequence[Reading]) -> dict[str, Any]:
    """Return what detectors cost: CPU time a non-empty closed bucket, all readings counted, and bytes a team.

    Garbage is collected as in a worker; as Python comes, it would look through the readings again and again.
    """
    spare_the_loop()
    began = time.process_time()
    teams = run(readings, Panel(Detection()))
    spent = time.process_time() - began
    buckets = sum(isinstance(reading, BucketReading) for reading in readings)
    return {"us_per_bucket": 1e6 * spent / buckets, "state_bytes": max(len(one.dump()) for one in teams.values())}


def judged(job: Job) -> list[dict[str, Any]]:
    """Run the panel over a tape with each set of parameters."""
    tape: Tape = pickle.loads((job.folder / "tape.pickle").read_bytes())
    truth = json.loads((job.folder / "labels.json").read_text())
    return [asdict(judge(truth, play(tape, params))) for params in job.params]


def strict(factor: float) -> dict[str, Any]:
    """Return parameters with every floor so many times higher, and records to be passed by as much more."""
    params: dict[str, Any] = {}
    named = {name: kind.parameters() for name, kind in detectors().items()} | {"fusion": FusionParams()}
    for name, own in named.items():
        params[name] = {f: getattr(own, f) * factor for f in FLOORS if hasattr(own, f)}
        if name == "fusion" or issubclass(detectors()[name], AmountDetector):
            params[name]["over"] = 1.0 + (own.over - 1.0) * factor
    return params


def moved(rng: random.Random) -> dict[str, Any]:
    """Return parameters with every constant of gate, floors, records and fusion moved by chance."""

    def chance(value: float) -> float:
        return value * (1.0 + rng.uniform(-SPREAD, SPREAD))

    params = strict(1.0)
    for own in params.values():
        for name, value in own.items():
            own[name] = 1.0 + chance(value - 1.0) if name == "over" else chance(value)
    gate, fusion = GateParams(), FusionParams()
    params["gate"] = {name: chance(getattr(gate, name)) for name in GATE}
    params["fusion"] |= {name: chance(getattr(fusion, name)) for name in FUSION}
    params["fusion"]["rest"] = round(chance(fusion.rest))
    params["fusion"]["weights"] = {name: chance(weight) for name, weight in fusion.weights.items()}
    return params


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the mean of a figure."""
    return statistics.mean(float(row[name]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", type=Path)
    args = parser.parse_args()
    if not args.tool.is_file():
        raise SystemExit(f"{args.tool}: no builder of data sets there")
    rng, about, n = random.Random(1), machine(), len(SEEDS)
    points: list[Mapping[str, Any]] = [{}, *(strict(factor) for factor in STRICTNESS)]
    with tempfile.TemporaryDirectory() as scratch, Pool(2) as pool:
        folders = [Path(scratch) / f"seed-{seed}" for seed in SEEDS]
        nominal = pool.map(build, [(args.tool, f, s) for f, s in zip(folders, SEEDS, strict=True)], chunksize=1)
        chance = [moved(rng) for _ in range(PERTURBATIONS)]
        jobs = [Job(folder, points) for folder in folders]
        jobs += [Job(folders[i % n], chance[i :: 2 * n]) for i in range(2 * n)]
        runs = pool.map(judged, jobs, chunksize=1)
    by_seed, others = runs[:n], runs[n:]
    curve = [[rows[i] for rows in by_seed] for i in range(len(points))]
    result = {
        "machine": about | {"compiled": nominal[0]["compiled"]},
        "nominal": nominal,
        **figures(nominal),
        "played": figures(curve[0]),
        "perturbed": figures([row for rows in others for row in rows]) | {"n": PERTURBATIONS, "spread": SPREAD},
        "us_per_bucket": nominal[0]["us_per_bucket"],
        "state_bytes": nominal[0]["state_bytes"],
        "curve": [{"strictness": k, **figures(rows)} for k, rows in zip(STRICTNESS, curve[1:], strict=True)],
    }
    show(result)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-incidents.json").write_text(json.dumps(result, indent=2) + "\n")


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means of what runs came to, and how far they are apart."""
    names = ("saved", "false_per_team_day")
    spread = {f"{name}_deviation": statistics.pstdev(row[name] for row in rows) for name in names}
    return {name: mean(rows, name) for name in names} | spread


def show(result: Mapping[str, Any]) -> None:
    """Print the figures, which detector carried which incident, what was lost, and the curve."""
    console = Console()
    table = Table(title="Published incidents over real tenants")
    for column in ("", "saved", "false alarms / team-day"):
        table.add_column(column, justify="right" if column else "left")
    for row in result["nominal"]:
        table.add_row(f"seed {row['seed']}", f"{row['saved']:.1%}", f"{row['false_per_team_day']:.3f}")
    for name in ("mean", "played", "perturbed"):
        row = result.get(name, result)
        table.add_row(name, f"{row['saved']:.1%}", f"{row['false_per_team_day']:.3f}")
    console.print(table)
    console.print(f"{result['us_per_bucket']:.1f} us a bucket (CPU), {result['state_bytes']:,} bytes of state a team")
    told_by(console, result["nominal"])
    console.print("strictness  false/team-day  saved")
    for point in result["curve"]:
        bar = "#" * round(point["saved"] * 60)
        console.print(f"{point['strictness']:10.2f} {point['false_per_team_day']:15.3f} {point['saved']:6.1%} {bar}")


def told_by(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print which detector carried which incident, whose the false alarms are, and what was lost."""
    carried: dict[str, Counter[str]] = {}
    false: Counter[str] = Counter()
    for row in rows:
        false.update(row["false_by"])
        for name, by in row["carried"].items():
            carried.setdefault(name.rsplit("-", 1)[0], Counter())[by] += 1
    for name, by in (*carried.items(), ("false alarms", false)):
        console.print(f"{name:22s} " + ", ".join(f"{detector} {times}" for detector, times in by.most_common()))
    for row in rows:
        for name, share in row["shares"].items():
            if share < LOST:
                console.print(f"lost: seed {row['seed']}, {name}: {share:.1%} saved")


if __name__ == "__main__":
    main()
