"""Guard.check beside PING of the same client, by turns, at a fixed rate against a real Valkey on loopback.

`python tests/bench/guard.py [--rate 2000] [--seconds 10] [--url redis://...]` prints a table and writes
build/bench-guard.json. Every fifth call is a PING. Threads: all on one Guard, a call timed from its start; one thread
is asked for half the rate. Async: a task a call, timed from its creation, so what waits behind others counts. A row
that fell behind its rate has not reached the target.
"""

import argparse
import asyncio
import gc
import importlib.util
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import redis
from machine import ROOT, Report

sys.path.insert(0, str(ROOT / "tests"))

from servers.valkey import Valkey
from spendbrake.actions.gateway.contract import Chain, Link, Mark
from spendbrake.actions.gateway.guard import AsyncGuard, Guard
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import Decision, Scope, Stamp, Verdict

NODES = ("key-1", "checkout", "payments", "billing-eu", "acme")
TARGET_P99_US = 1000.0
TARGET_RATIO = 3.0
CLIENTS = {"1 thread": (1, 0.5), "4 threads": (4, 1.0), "async": (0, 1.0)}
"""Threads, and the share of the rate: one thread answers one call after the other."""
PATIENCE_S = 10.0
"""The bench measures how long answers take, so none may be given up."""


def decision(node: str, policy: str, verdict: Verdict, scope: Scope, **more: Any) -> Decision:
    return Decision(
        node=node, scope=scope, policy=policy, verdict=verdict, stamp=Stamp(epoch=1, offset=10), partition=7,
        code="rate_limited", reason="spend is 4.2 times its usual rate", action_id="5f3a9c1e77b0d2aa",
        expires_at=time.time() + 86_400, **more,
    )  # fmt: skip


def fill(store: Store, layer: str) -> None:
    """Publish one key under five ancestors: `idle` = no decision; `busy` = three an ancestor, two throttles bind."""
    now = time.time()
    stamp = Stamp(epoch=1, offset=10)
    links = tuple(Link(node, "rollups.v1" if node in NODES[3:] else "usage.v1", 7) for node in NODES)
    store.write_keys({"key-1": Chain(links=links, stamp=stamp, team="payments", environment="prod")}, now=now)
    for log in ("usage.v1", "rollups.v1"):
        store.write_marks([Mark(log=log, partition=7, at=now + 3600, stamp=stamp)], now=now)
    if layer == "idle":
        return
    decisions = [decision(node, "lifted", "allow", Scope()) for node in NODES]
    decisions += [decision(node, "non-prod", "block", Scope(environment=("dev", "staging"))) for node in NODES]
    decisions += [decision(node, "rate", "throttle", Scope(), max_rps=1e6) for node in ("key-1", "payments")]
    dear = Scope(models=("claude-opus-*",))
    decisions += [decision(n, "dear", "downgrade", dear, model="claude-haiku-4-5") for n in NODES[1:2] + NODES[3:]]
    store.write_decisions(decisions, now=now)


def schedule(rate: float, seconds: float) -> Iterator[tuple[str, float]]:
    """Yield what is due when: `rate` checks a second, evenly spaced, and a PING after every fourth."""
    start, step = time.perf_counter() + 0.01, 0.8 / rate
    for n in range(int(seconds * rate * 1.25)):
        yield "ping" if n % 5 == 4 else "check", start + n * step


def run_sync(url: str, rate: float, seconds: float, n: int) -> tuple[dict[str, list[float]], float]:
    """Return seconds taken by name, and the seconds it all took."""
    guard = Guard(url, timeout_s=PATIENCE_S)
    turns: dict[str, Callable[[], Any]] = {"ping": guard._client.ping, "check": lambda: guard.check("key-1", "gpt-5")}
    taken: dict[str, list[float]] = {"ping": [], "check": []}

    def one_thread(share: float, length_s: float) -> None:
        for name, due in schedule(rate * share, length_s):
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            turns[name]()
            taken[name].append(time.perf_counter() - began)

    with ThreadPoolExecutor(n) as threads:
        list(threads.map(one_thread, [1 / n] * n, [0.2] * n))
        for values in taken.values():
            values.clear()
        start = time.perf_counter()
        list(threads.map(one_thread, [1 / n] * n, [seconds] * n))
        wall_s = time.perf_counter() - start
    assert not guard.unavailable, guard.unavailable
    guard.close()
    return taken, wall_s


async def run_async(url: str, rate: float, seconds: float) -> tuple[dict[str, list[float]], float]:
    """Return seconds taken by name, and the seconds it all took."""
    guard = AsyncGuard(url, timeout_s=PATIENCE_S)
    turns: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "ping": guard._client.ping,
        "check": lambda: guard.check("key-1", "gpt-5"),
    }
    taken: dict[str, list[float]] = {"ping": [], "check": []}

    async def one(name: str, began: float) -> None:
        await turns[name]()
        taken[name].append(time.perf_counter() - began)

    async def all_of(length_s: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        for name, due in schedule(rate, length_s):
            if due > time.perf_counter():
                await asyncio.sleep(due - time.perf_counter())
            task = asyncio.create_task(one(name, time.perf_counter()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    await all_of(0.2)
    for values in taken.values():
        values.clear()
    start = time.perf_counter()
    await all_of(seconds)
    wall_s = time.perf_counter() - start
    assert not guard.unavailable, guard.unavailable
    await guard.aclose()
    return taken, wall_s


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e6


def row(taken: dict[str, list[float]], wall_s: float, rate: float) -> dict[str, Any]:
    kept_up = len(taken["check"]) / wall_s >= 0.95 * rate
    figures = {f"{name}_{p}_us": percentile(taken[name], s) for name in taken for p, s in (("p50", 0.5), ("p99", 0.99))}
    return {
        "checks": len(taken["check"]),
        "checks_per_s": len(taken["check"]) / wall_s,
        **figures,
        "ratio_p50": figures["check_p50_us"] / figures["ping_p50_us"],
        "ratio_p99": figures["check_p99_us"] / figures["ping_p99_us"],
        "reached": kept_up
        and (
            figures["check_p99_us"] <= TARGET_P99_US or figures["check_p99_us"] <= TARGET_RATIO * figures["ping_p99_us"]
        ),
    }


def script_us(url: str) -> float:
    """Return the server's own time for one check, microseconds, from INFO COMMANDSTATS."""
    with redis.Redis.from_url(url) as client:
        return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2000.0, help="checks a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--url", help="a Redis or Valkey of one's own, which is emptied; else one is started")
    options = parser.parse_args()
    facts = {"rate": options.rate, "ancestors": len(NODES)}
    report = Report("guard", "Guard.check beside PING of the same client, microseconds", facts)
    with ExitStack() as stack:
        url = options.url or stack.enter_context(Valkey()).url
        client = stack.enter_context(redis.Redis.from_url(url))
        server = client.info("server")
        for layer in ("idle", "busy"):
            for kind, (n_threads, share) in CLIENTS.items():
                rate = options.rate * share
                client.flushdb()
                client.config_resetstat()
                fill(Store(client), layer)
                gc.collect()
                if n_threads:
                    taken, wall_s = run_sync(url, rate, options.seconds, n_threads)
                else:
                    taken, wall_s = asyncio.run(run_async(url, rate, options.seconds))
                figures = row(taken, wall_s, rate) | {"script_us": script_us(url)}
                report.add(f"{kind}, {layer}", **figures)
    report.facts |= {
        "redis_py": redis.__version__,
        "hiredis": importlib.util.find_spec("hiredis") is not None,
        "server": server.get("valkey_version", server["redis_version"]),
    }
    report.end()


if __name__ == "__main__":
    main()
