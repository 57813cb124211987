"""Where the CPU time of a burn worker went, by the parts of the product and its libraries. It reads profiles only."""

import cProfile
import pstats
from collections import Counter
from collections.abc import Sequence

PARTS = (
    ("decode", ("/engine/intake/", "/schemas/wire/", "pyruhvro", "pyarrow", "orjson")),
    ("rollups", ("/engine/rollups.py",)),
    ("detectors", ("/detectors/",)),
    ("judge and policies", ("/engine/judge/", "/actions/policies/", "/streams/budgets/")),
    ("rows", ("/engine/state/rows.py", "/engine/state/codec.py", "/partitions/snapshot.py", "/transport/store.py")),
    ("engine, the rest", ("/streams/engine/", "/numpy/")),
    ("outputs", ("/partitions/outputs.py", "/transport/producer.py", "/aiokafka/producer/", "/aiokafka/record/")),
    ("fetch", ("/streams/transport/", "/aiokafka/", "sqlite")),
    ("faust", ("/faust/", "/mode/")),
    ("event loop", ("/asyncio/", "selectors.py", "threading.py", "concurrent/")),
    ("worker", ("/streams/workers/", "/streams/metrics.py", "prometheus")),
    ("bench", ("/tests/bench/",)),
)
"""A part is the first whose path holds one of these. Built-in functions count for those who call them."""


def part_of(path: str) -> str:
    return next((name for name, marks in PARTS if any(mark in path for mark in marks)), "others")


def shares(profiles: Sequence[cProfile.Profile]) -> dict[str, float]:
    """Return seconds by part, the largest first."""
    used: Counter[str] = Counter()
    for profile in profiles:
        profile.create_stats()
        if not profile.stats:  # type: ignore[attr-defined]
            continue
        for (path, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if path != "~" or not callers:
                used[part_of(path if path != "~" else name)] += own
                continue
            for (caller, _, caller_name), (_, _, caller_own, _) in callers.items():
                used[part_of(caller if caller != "~" else caller_name)] += caller_own
    return {name: round(seconds, 4) for name, seconds in used.most_common()}
