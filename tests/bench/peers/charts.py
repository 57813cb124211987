"""Draws the figures of the last runs, in the peers' environment: `build/peers/bin/python tests/bench/peers/charts.py`.

Writes build/bench-NAME.svg for each of `DRAWN` whose figures are there, and the same as PNG. It measures nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

BUILD = Path(__file__).parents[3] / "build"
OURS, OTHERS, LIMIT = "#0b6e4f", "#9aa5b1", "#c0392b"
Rows = list[dict[str, Any]]
FLAT = 1.3
"""An event may cost so many times what it costs at the cheapest point of a curve."""


def peers(rows: Rows) -> plt.Figure:
    """Draw CPU time an event of the pipeline and its peers; bars may differ by a hundred, so by orders."""
    shown = sorted(
        (row for row in rows if row["name"].endswith(", avro") and "ratio" in row), key=lambda r: -r["cpu_us_per_event"]
    )
    shown = [row for row in shown if row["key"] != "pipeline_off"]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(shown) + 1.4))
    names = [row["name"].removesuffix(", avro") for row in shown]
    values = [row["cpu_us_per_event"] for row in shown]
    colors = [OURS if row["name"].startswith("spendbrake") else OTHERS for row in shown]
    bars = axes.barh(names, values, color=colors)
    axes.bar_label(bars, [f"{value:,.1f}" for value in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(1, max(values) * 3)
    axes.set_xlabel("CPU microseconds an event, warm, one core (logarithmic)")
    figure.suptitle(
        "spendbrake's whole pipeline beside peers that decode, sum by team and window, and hold one threshold",
        fontsize=10, x=0.02, ha="left",
    )  # fmt: skip
    return figure


def curves(rows: Rows) -> plt.Figure:
    """Draw the cost of an event by number of teams, and by age of the state."""
    figure, (by_teams, by_age) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axes, key, column, label in (
        (by_teams, "teams", "teams", "teams, of two days each"),
        (by_age, "age", "days", "days of state preloaded, 2,000 teams"),
    ):
        points = sorted((row[column], row["cpu_us_per_event"]) for row in rows if row.get("key") == key)
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o-", color=OURS, label="all of it")
            for at, value in points:
                axes.annotate(f"{value:.1f}", (at, value), textcoords="offset points", xytext=(0, 8), ha="center")
            axes.axhline(FLAT * min(y), color=LIMIT, linestyle="--", linewidth=1, label=f"{FLAT} times the cheapest")
            axes.legend(loc="upper left")
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.margins(0.1)
    events = sorted((row["teams"], row["cpu_us_per_event"]) for row in rows if row.get("key") == "events")
    if events:
        by_teams.plot(*zip(*events, strict=True), "o-", color=OTHERS, label="detection off")
        by_teams.legend(loc="upper left")
    by_teams.set_ylim(0, 1.25 * by_teams.get_ylim()[1])
    by_teams.set_ylabel("CPU microseconds an event")
    figure.suptitle("the whole pipeline on Kafka")
    return figure


def latency(rows: Rows) -> plt.Figure:
    """Draw how long decisions took, from the producer's acknowledgement to the gateway's block."""
    figure, axes = plt.subplots(figsize=(9, 4))
    for row in rows:
        taken = row["taken_ms"]
        axes.step(taken, [100 * (i + 1) / len(taken) for i in range(len(taken))], where="post", label=row["name"])
    axes.axvline(1_000, color=LIMIT, linestyle="--", linewidth=1, label="one second")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds from acknowledgement to block (logarithmic)")
    axes.set_ylabel("percent of crossings")
    axes.legend(loc="lower right")
    return figure


def incidents(found: dict[str, Any]) -> plt.Figure:
    """Draw money saved against false alarms: along the curve, as configured, and moved by chance."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    points = [(row["false_per_team_day"], 100 * row["saved"], row["strictness"]) for row in found["curve"]]
    axes.plot(
        [x for x, _, _ in points], [y for _, y, _ in points], "o-", color=OTHERS, label="floors and records moved"
    )
    for x, y, strictness in points:
        axes.annotate(f"x{strictness:g}", (x, y), textcoords="offset points", xytext=(4, -12), fontsize=8)
    by_chance = found["perturbed"]
    axes.errorbar(
        by_chance["false_per_team_day"], 100 * by_chance["saved"],
        xerr=by_chance["false_per_team_day_deviation"], yerr=100 * by_chance["saved_deviation"],
        fmt="s", color=LIMIT, capsize=3, label=f"{by_chance['n']} times all constants moved by chance",
    )  # fmt: skip
    axes.plot(found["false_per_team_day"], 100 * found["saved"], "D", color=OURS, label="as configured, three seeds")
    axes.axvline(0.05, color=LIMIT, linestyle="--", linewidth=1)
    axes.axhline(92, color=LIMIT, linestyle="--", linewidth=1)
    axes.set_xlabel("false alarms a team and day")
    axes.set_ylabel("percent of incident money saved")
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")
    return figure


def nab(found: dict[str, Any]) -> plt.Figure:
    """Draw the benchmark's standard score against false alarms, along the gate."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    points = [(row["false_per_1000"], row["standard"]) for row in found["curve"]]
    axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=OTHERS, label="gate moved")
    axes.plot(found["nominal"]["false_per_1000"], found["nominal"]["standard"], "D", color=OURS, label="as configured")
    axes.axhline(
        found["perturbed"]["standard"], color=LIMIT, linestyle="--", linewidth=1, label="mean, moved by chance"
    )
    axes.set_xlabel("false alarms in 1,000 points")
    axes.set_ylabel("NAB, standard profile")
    axes.set_ylim(50, 80)
    axes.legend(loc="lower right")
    return figure


def rows_of(draw: Callable[[Rows], plt.Figure]) -> Callable[[dict[str, Any]], plt.Figure]:
    """Return how a report is drawn whose figures are rows."""
    return lambda found: draw(found["rows"])


DRAWN: dict[str, tuple[str, Callable[[dict[str, Any]], plt.Figure]]] = {
    "peers": ("pipeline", rows_of(peers)),
    "curves": ("curves", rows_of(curves)),
    "latency": ("latency", rows_of(latency)),
    "incidents": ("incidents", incidents),
    "nab": ("nab", nab),
}


def main() -> None:
    for name, (target, draw) in DRAWN.items():
        source = BUILD / f"bench-{target}.json"
        if source.exists():
            figure = draw(json.loads(source.read_text()))
            figure.tight_layout()
            for suffix in ("svg", "png"):
                path = BUILD / f"bench-{name}.{suffix}"
                figure.savefig(path, dpi=120)
            print(path)
            plt.close(figure)


if __name__ == "__main__":
    main()
