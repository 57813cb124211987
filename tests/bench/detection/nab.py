"""The Numenta Anomaly Benchmark with the detectors of slots, configured as the service runs them.

`python tests/bench/detection/nab.py DATA OUT` reads every DATA/<folder>/<file>.csv (`timestamp,value`), writes
OUT/<folder>/<file>.csv with an `anomaly_score`, and, where DATA/labels.json has windows, scores them: the evidence is
recorded once; fusion and alert budget are run on it as they are, and 50 times with their constants moved. A row is
a slot.
"""

import argparse
import csv
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection.nabrules import PROFILES, Weighed, best, weigh
from machine import BUILD, machine
from rich.console import Console
from rich.table import Table

from spendbrake.detectors.panel import Panel
from spendbrake.detectors.series.features import Features, Slot
from spendbrake.detectors.series.fusion import AlertBudget, Fusion, FusionParams, fused
from spendbrake.schemas.policy import Detection

PERTURBATIONS = 50
SPREAD = 0.25
"""The constants of the alert budget and the detectors' weights are moved by up to this part, up or down."""
MEMBERS = [kind.name for kind, _ in Panel(Detection()).level()]
GATES = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 3.0)
"""Times the gate, for the curve."""


@dataclass
class Series:
    """One file: its times, each detector's opinion of each row, and whether they were compiled."""

    name: str
    times: list[int]
    parts: list[tuple[float, ...]]
    cpu_s: float
    compiled: str


def record(job: tuple[Path, Path]) -> Series:
    """Run the detectors over a file, strictly online."""
    data, path = job
    panel = Panel(Detection())
    fusion = Fusion(panel.level(), panel.fusion)
    with path.open(newline="") as file:
        rows = [(_seconds(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
    began = time.process_time()
    parts = [fusion.advance(_features(at, value)).parts for at, value in rows]
    cpu_s = time.process_time() - began
    return Series(str(path.relative_to(data)), [at for at, _ in rows], parts, cpu_s, machine()["compiled"])


def alarms(parts: Sequence[tuple[float, ...]], params: FusionParams) -> list[float]:
    """Return the anomaly score of each row, in [0, 1): what its alarm is beyond the budget, else 0."""
    budget, weights = AlertBudget(params), [params.weights[name] for name in MEMBERS]
    return [-math.expm1(-budget.advance(fused(one, weights)[0])) for one in parts]


def moved(params: FusionParams, rng: random.Random) -> FusionParams:
    """Return the constants of the alert budget, each moved by chance."""

    def factor() -> float:
        return 1.0 + rng.uniform(-SPREAD, SPREAD)

    return params.model_copy(
        update={
            "gate": params.gate * factor(),
            "budget": params.budget * factor(),
            "memory": params.memory * factor(),
            "rest": round(params.rest * factor()),
            "weights": {name: weight * factor() for name, weight in params.weights.items()},
        }
    )


def _features(at: float, value: float) -> Features:
    return Features(at, 300.0, 0.0, 0, (), 0.0, 0.0, 0, None, Slot(at, value))


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text.strip()[:19]).replace(tzinfo=UTC).timestamp())


def _write(out: Path, series: list[Series], params: FusionParams) -> None:
    for one in series:
        path = out / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["anomaly_score"])
            writer.writerows([f"{score:.6f}"] for score in alarms(one.parts, params))


def _score(series: list[Series], weighed: dict[str, Weighed], params: FusionParams) -> dict[str, Any]:
    scores = {one.name: alarms(one.parts, params) for one in series if one.name in weighed}
    return best(scores, weighed)


def _figures(series: list[Series], weighed: dict[str, Weighed]) -> dict[str, Any]:
    params, rng = FusionParams(), random.Random(1)
    nominal = _score(series, weighed, params)
    others = [_score(series, weighed, moved(params, rng)) for _ in range(PERTURBATIONS)]
    curve = [
        {"gate": params.gate * k, **_score(series, weighed, params.model_copy(update={"gate": params.gate * k}))}
        for k in GATES
    ]
    return {
        "nominal": nominal,
        "perturbed": {name: statistics.mean(o[name] for o in others) for name in PROFILES},
        "deviation": {name: statistics.pstdev(o[name] for o in others) for name in PROFILES},
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    files = sorted(args.data.glob("*/*.csv"))
    if not files:
        raise SystemExit(f"{args.data}: no <folder>/<file>.csv")
    with Pool(2) as pool:
        series = pool.map(record, [(args.data, path) for path in files], chunksize=1)
    _write(args.out, series, FusionParams())
    points = sum(len(one.times) for one in series)
    result: dict[str, Any] = {
        "machine": machine() | {"compiled": series[0].compiled},
        "files": len(series),
        "points": points,
        "us_per_point": round(1e6 * sum(one.cpu_s for one in series) / points, 1),
    }
    labels = args.data / "labels.json"
    if labels.exists():
        windows = json.loads(labels.read_text())
        weighed = {
            one.name: weigh(one.times, [(_seconds(a), _seconds(b)) for a, b in windows[one.name]])
            for one in series
            if one.name in windows
        }
        result |= _figures(series, weighed)
    _print(result)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench-nab.json").write_text(json.dumps(result, indent=2) + "\n")


def _print(result: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{result['files']} files, {result['points']:,} points, {result['us_per_point']} us/point (CPU)")
    if "nominal" not in result:
        return
    table = Table(title="NAB, strictly online, the service's configuration")
    for column in ("", *PROFILES, "false alarms / 1,000 points"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("nominal", "perturbed", "deviation"):
        row = result[name]
        cells = [f"{row[p]:.2f}" for p in PROFILES]
        table.add_row(name, *cells, f"{row['false_per_1000']:.2f}" if "false_per_1000" in row else "")
    console.print(table)
    console.print("gate   false/1,000   standard")
    for point in result["curve"]:
        bar = "#" * round(max(point["standard"], 0.0) * 0.8)
        console.print(f"{point['gate']:.3f} {point['false_per_1000']:10.2f} {point['standard']:10.1f} {bar}")


if __name__ == "__main__":
    main()
