"""The scoring rules of the Numenta Anomaly Benchmark (v1.1), over alarms: https://github.com/numenta/NAB.

A window is worth most at its left edge and counts once; an alarm outside costs, least just behind a window; the first
15 % of a file (at most 750 rows) are not scored; each profile takes its best threshold on all files together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PROFILES = {"standard": (1.0, 1.0, 0.11), "low_fp": (1.0, 1.0, 0.22), "low_fn": (1.0, 2.0, 0.11)}
"""Weights of a hit, a missed window, and a false alarm."""


@dataclass(frozen=True)
class Weighed:
    """One file's rows.

    Attributes:
        worth: Of an alarm at each row, before weights: positive inside a window, negative outside.
        window: Number of the row's window, -1 outside.
        first: First row that is scored.
        n: Windows.
    """

    worth: Sequence[float]
    window: Sequence[int]
    first: int
    n: int


def sigmoid(x: float) -> float:
    """Return NAB's scaled sigmoid: 1 far left of a window's end, -1 far right."""
    return -1.0 if x > 3.0 else 2.0 / (1.0 + math.exp(5.0 * x)) - 1.0


def weigh(times: Sequence[int], windows: Sequence[tuple[int, int]]) -> Weighed:
    """Return what an alarm at each row is worth; windows are the times of their first and last rows."""
    place = {at: i for i, at in reversed(list(enumerate(times)))}
    spans = [(place[a], place[b]) for a, b in windows]
    worth, window, best_case = [], [], sigmoid(-1.0)
    for i in range(len(times)):
        inside = next((k for k, (a, b) in enumerate(spans) if a <= i <= b), -1)
        window.append(inside)
        if inside >= 0:
            a, b = spans[inside]
            worth.append(sigmoid(-(b - i + 1) / (b - a + 1)) / best_case)
            continue
        behind = next(((a, b) for a, b in reversed(spans) if b < i), None)
        worth.append(-1.0 if behind is None else sigmoid((i - behind[1]) / max(behind[1] - behind[0], 1)))
    return Weighed(worth, window, min(math.floor(0.15 * len(times)), 750), len(windows))


def best(scores: Mapping[str, Sequence[float]], weighed: Mapping[str, Weighed]) -> dict[str, float]:
    """Return the normalised score of each profile, and the false alarms in 1,000 scored rows at any threshold."""
    fired, n_windows, rows, false = [], 0, 0, 0
    for name, file in weighed.items():
        n_windows, rows = n_windows + file.n, rows + len(file.worth) - file.first
        for i in range(file.first, len(file.worth)):
            if scores[name][i] > 0.0:
                fired.append((scores[name][i], file.worth[i], (name, file.window[i])))
                false += file.window[i] < 0
    fired.sort(key=lambda alarm: -alarm[0])
    figures = {profile: _profile(fired, n_windows, *weights) for profile, weights in PROFILES.items()}
    return {**figures, "false_per_1000": 1_000.0 * false / rows}


def _profile(
    fired: Sequence[tuple[float, float, tuple[str, int]]], n_windows: int, hit: float, miss: float, false: float
) -> float:
    total, found, most = -miss * n_windows, {}, -math.inf
    most = max(most, total)
    for i, (score, worth, window) in enumerate(fired):
        if window[1] < 0:
            total += worth * false
        else:
            before = found.get(window, -miss)
            found[window] = max(before, worth * hit)
            total += found[window] - before
        if i + 1 == len(fired) or fired[i + 1][0] != score:
            most = max(most, total)
    return 100.0 * (most + miss * n_windows) / ((hit + miss) * n_windows)
