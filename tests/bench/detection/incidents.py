"""Published incidents over real tenants, through the engine of `spendbrake replay`: money saved against false alarms.

`python tests/bench/detection/incidents.py TOOL` takes a builder of data sets (`TOOL build OUT --seed N` writes
events.jsonl and labels.json). What the engine shows to the detectors is recorded once; the detectors are run on it as
configured, with their gates moved along the curve, and 50 times with all constants of the gate moved by chance.
"""

import argparse
import json
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection.saved import judge
from machine import BUILD, machine
from rich.console import Console
from rich.table import Table

from spendbrake.detectors import team
from spendbrake.detectors.base import AmountDetector
from spendbrake.detectors.catalog import detectors
from spendbrake.detectors.gate import GateParams
from spendbrake.detectors.panel import Panel
from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Context, Reading
from spendbrake.streams.budgets.starter import unbudgeted
from spendbrake.streams.offline import replay

SEEDS = (1, 2, 3)
PERTURBATIONS = 50
SPREAD = 0.25
STRICTNESS = (0.35, 0.6, 1.0, 1.6, 2.5, 4.0)
"""Times the floors and the distance to the record, for the curve."""
FLOORS = ("floor_usd", "floor_days")


@dataclass(frozen=True)
class Job:
    """One run of the detectors over recorded readings."""

    folder: Path
    params: Mapping[str, Any]


def build(job: tuple[Path, Path, int]) -> dict[str, Any]:
    """Build a data set and replay it; keep what was shown to the detectors and what was found."""
    tool, folder, seed = job
    subprocess.run([sys.executable, tool, "build", folder, "--seed", str(seed)], check=True, stdout=subprocess.DEVNULL)
    shown: list[Reading] = []
    read = team.TeamPanel.read

    def keep(panel: team.TeamPanel, reading: Reading, context: Any) -> list[Finding]:
        shown.append(reading)
        return read(panel, reading, context)

    team.TeamPanel.read = keep  # type: ignore[method-assign]
    policy = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=unbudgeted())
    found: list[Finding] = []
    with (folder / "events.jsonl").open("rb") as lines:
        for told in replay.replay(lines, policy):
            found += told.findings
    team.TeamPanel.read = read  # type: ignore[method-assign]
    (folder / "events.jsonl").unlink()
    (folder / "readings.pickle").write_bytes(pickle.dumps(shown, pickle.HIGHEST_PROTOCOL))
    verdict = judge(json.loads((folder / "labels.json").read_text()), found)
    return {"seed": seed, **asdict(verdict)}


def run(job: Job) -> dict[str, Any]:
    """Run the detectors over recorded readings."""
    panel = Panel(Detection(params=job.params))
    readings: list[Reading] = pickle.loads((job.folder / "readings.pickle").read_bytes())
    teams: dict[str, team.TeamPanel] = {}
    found: list[Finding] = []
    began = time.process_time()
    for reading in readings:
        one = teams.get(reading.team) or teams.setdefault(reading.team, panel.team(reading.team))
        found += one.read(reading, Context)
    spent = time.process_time() - began
    verdict = judge(json.loads((job.folder / "labels.json").read_text()), found)
    buckets = sum(isinstance(reading, BucketReading) for reading in readings)
    return {
        **asdict(verdict),
        "us_per_bucket": 1e6 * spent / buckets,
        "state_bytes": max(len(one.dump()) for one in teams.values()),
    }


def strict(factor: float) -> dict[str, Any]:
    """Return parameters with every floor so many times higher, and records to be passed by as much more."""
    params: dict[str, Any] = {}
    for name, kind in detectors().items():
        own = kind.parameters()
        params[name] = {f: getattr(own, f) * factor for f in FLOORS if hasattr(own, f)}
        if issubclass(kind, AmountDetector):
            params[name]["over"] = 1.0 + (own.over - 1.0) * factor
    return params


def moved(rng: random.Random) -> dict[str, Any]:
    """Return parameters with every constant of gate, floors and records moved by chance."""
    params = strict(1.0)
    for own in params.values():
        for name in own:
            factor = 1.0 + rng.uniform(-SPREAD, SPREAD)
            own[name] = 1.0 + (own[name] - 1.0) * factor if name == "over" else own[name] * factor
    gate = GateParams()
    moving = ("usual_fraction", "alarm_memory_s", "alarm_score", "alarm_money", "alarm_fact", "youth")
    params["gate"] = {name: getattr(gate, name) * (1.0 + rng.uniform(-SPREAD, SPREAD)) for name in moving}
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
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as scratch, Pool(2) as pool:
        folders = [Path(scratch) / f"seed-{seed}" for seed in SEEDS]
        jobs = [(args.tool, folder, seed) for folder, seed in zip(folders, SEEDS, strict=True)]
        nominal = pool.map(build, jobs, chunksize=1)
        plain = pool.map(run, [Job(folder, {}) for folder in folders], chunksize=1)
        points = [Job(folder, strict(factor)) for factor in STRICTNESS for folder in folders]
        curve = pool.map(run, points, chunksize=1)
        chance = [Job(folders[i % len(folders)], moved(rng)) for i in range(PERTURBATIONS)]
        others = pool.map(run, chance, chunksize=1)
    n = len(SEEDS)
    result = {
        "machine": machine(),
        "nominal": nominal,
        "saved": mean(nominal, "saved"),
        "false_per_team_day": mean(nominal, "false_per_team_day"),
        "perturbed": {name: mean(others, name) for name in ("saved", "false_per_team_day")},
        "us_per_bucket": mean(plain, "us_per_bucket"),
        "state_bytes": max(row["state_bytes"] for row in plain),
        "curve": [
            {
                "strictness": factor,
                "saved": mean(curve[n * i : n * i + n], "saved"),
                "false_per_team_day": mean(curve[n * i : n * i + n], "false_per_team_day"),
            }
            for i, factor in enumerate(STRICTNESS)
        ],
    }
    show(result)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-incidents.json").write_text(json.dumps(result, indent=2) + "\n")


def show(result: Mapping[str, Any]) -> None:
    """Print the figures, which detector carried which incident, and the curve."""
    console = Console()
    table = Table(title="Published incidents over real tenants")
    for column in ("", "saved", "false alarms / team-day"):
        table.add_column(column, justify="right" if column else "left")
    for row in result["nominal"]:
        table.add_row(f"seed {row['seed']}", f"{row['saved']:.1%}", f"{row['false_per_team_day']:.3f}")
    table.add_row("mean", f"{result['saved']:.1%}", f"{result['false_per_team_day']:.3f}")
    other = result["perturbed"]
    table.add_row(f"{PERTURBATIONS} perturbations", f"{other['saved']:.1%}", f"{other['false_per_team_day']:.3f}")
    console.print(table)
    console.print(f"{result['us_per_bucket']:.1f} us a bucket (CPU), {result['state_bytes']:,} bytes of state a team")
    carried: dict[str, Counter[str]] = {}
    for row in result["nominal"]:
        for name, by in row["carried"].items():
            carried.setdefault(name.rsplit("-", 1)[0], Counter())[by] += 1
    for name, by in carried.items():
        console.print(f"{name:22s} " + ", ".join(f"{detector} {times}" for detector, times in by.most_common()))
    console.print("strictness  false/team-day  saved")
    for point in result["curve"]:
        bar = "#" * round(point["saved"] * 60)
        console.print(f"{point['strictness']:10.2f} {point['false_per_team_day']:15.3f} {point['saved']:6.1%} {bar}")


if __name__ == "__main__":
    main()
