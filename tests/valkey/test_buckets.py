"""Throttles: token buckets in Redis against the same arithmetic in Python, and what shares or spares them."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_samples import DAY, NOW, chain, decision, marks, publish, throttle
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import Scope

FOREVER = 1e12


class Model:
    """One bucket: `burst` calls, refilled at `max_rps` from the moment of the last call."""

    def __init__(self, max_rps: float, burst: int | None) -> None:
        self.max_rps = max_rps
        self.full = burst or max(1, math.ceil(max_rps))
        self.tokens, self.at = float(self.full), NOW

    def look(self, now: float) -> float:
        self.tokens = min(self.full, self.tokens + max(0.0, now - self.at) * self.max_rps)
        self.at = max(self.at, now)
        return self.tokens


def guard_at(client, clock: list[float]) -> Guard:
    return Guard(client, clock=lambda: clock[0], stale_after_s=FOREVER)


rates = st.floats(0.05, 500.0, allow_nan=False)
bursts = st.one_of(st.none(), st.integers(1, 20))
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(0.0, 200.0)), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(rates, bursts), min_size=1, max_size=3), gaps)
def test_buckets_agree_with_the_arithmetic(valkey, limits, waits) -> None:
    valkey.flushdb()
    nodes = ("key-1", "payments", "acme")[: len(limits)]
    publish(Store(valkey), *(throttle(n, r, b, expires_at=FOREVER) for n, (r, b) in zip(nodes, limits, strict=True)))
    models = [Model(rate, burst) for rate, burst in limits]
    clock = [NOW]
    guard = guard_at(valkey, clock)
    for wait in waits:
        clock[0] += wait
        result = guard.check("k", "gpt-5")
        levels = [model.look(clock[0]) for model in models]
        if any(abs(level - (1 - 1e-3)) < 1e-6 for level in levels):
            return  # On the very edge the two clocks of doubles may disagree.
        if all(level > 1 - 1e-3 for level in levels):
            for model in models:
                model.tokens -= 1
            assert result.verdict == "allow"
            assert abs(result.remaining - max(0, min(model.tokens for model in models))) <= 1
        else:
            waited = [(1 - m.tokens) / m.max_rps for m, level in zip(models, levels, strict=True) if level < 1 - 1e-3]
            assert (result.verdict, result.status, result.remaining) == ("throttle", 429, 0)
            assert math.isclose(result.retry_after, max(waited), rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.1, 200.0), st.integers(1, 5))
def test_who_waits_retry_after_passes_and_nobody_gets_more_than_the_rate(valkey, rate: float, burst: int) -> None:
    valkey.flushdb()
    publish(Store(valkey), throttle("payments", rate, burst, expires_at=FOREVER))
    clock = [NOW]
    guard = guard_at(valkey, clock)
    passed = 0
    for _ in range(30):
        result = guard.check("k", "gpt-5")
        if result.allowed:
            passed += 1
        else:
            assert result.retry_after > 0
            clock[0] += result.retry_after
            assert guard.check("k", "gpt-5").allowed
            passed += 1
    assert passed <= burst + (clock[0] - NOW) * rate + 0.01


def test_no_bucket_is_debited_when_another_refuses(valkey) -> None:
    store = Store(valkey)
    publish(store, throttle("key-1", 0.001, 1), throttle("acme", 0.001, 10))
    guard = guard_at(valkey, [NOW])
    assert [guard.check("k", "m").verdict for _ in range(4)] == ["allow", "throttle", "throttle", "throttle"]
    tokens = float(valkey.get("{sb}:b:acme|*|p").split()[0])
    assert tokens == 9.0


def test_a_call_refused_otherwise_takes_no_token(valkey) -> None:
    store = Store(valkey)
    publish(store, throttle("payments", 1.0, 5), decision("acme", "queue"))
    guard = guard_at(valkey, [NOW])
    for _ in range(5):
        assert guard.check("k", "m").verdict == "queue"
    assert valkey.keys("{sb}:b:*") == []


def test_a_throttle_holds_beside_a_downgrade(valkey) -> None:
    publish(Store(valkey), throttle("payments", 0.5, 1), decision("acme", "downgrade", model="small"))
    guard = guard_at(valkey, [NOW])
    first, second = guard.check("k", "large"), guard.check("k", "large")
    assert (first.verdict, first.model) == ("downgrade", "small")
    assert (second.verdict, second.retry_after) == ("throttle", 2.0)


def test_all_keys_of_a_node_share_its_bucket(valkey) -> None:
    store = Store(valkey)
    publish(store, throttle("payments", 1.0, 3))
    publish(store, throttle("acme", 1.0, 2, scope=Scope(keys=("k", "l"))))
    store.write_keys({"l": chain()}, now=NOW)
    guard = guard_at(valkey, [NOW])
    assert [guard.check(key, "m").verdict for key in "klkl"] == ["allow", "allow", "throttle", "throttle"]


def test_a_stricter_rate_holds_from_the_next_call(valkey) -> None:
    store = Store(valkey)
    publish(store, throttle("payments", 100.0, 100))
    guard = guard_at(valkey, [NOW])
    assert guard.check("k", "m").remaining == 99
    store.write_decisions([throttle("payments", 1.0, 2, offset=11)], now=NOW)
    assert [guard.check("k", "m").allowed for _ in range(3)] == [True, True, False]


def test_gateways_whose_clocks_differ_do_not_refill_for_each_other(valkey) -> None:
    publish(Store(valkey), throttle("payments", 1.0, 4))
    ahead, behind = guard_at(valkey, [NOW + 3]), guard_at(valkey, [NOW])
    allowed = [guard.check("k", "m").allowed for _ in range(4) for guard in (ahead, behind)]
    assert allowed == [True] * 4 + [False] * 4


def test_a_bucket_of_another_run_of_the_clock_starts_anew(valkey) -> None:
    store = Store(valkey)
    publish(store, throttle("payments", 0.001, 1, expires_at=FOREVER))
    assert guard_at(valkey, [NOW + 30 * DAY]).check("k", "m").allowed
    first = guard_at(valkey, [NOW])
    assert [first.check("k", "m").allowed for _ in range(2)] == [True, False]


def test_a_budget_is_not_a_token_bucket(valkey) -> None:
    """Waiting refills a rate; a spent budget stays spent until its period ends."""
    store = Store(valkey)
    end = NOW + 5 * DAY
    publish(store, decision("payments", policy="cap", reset_at=end, expires_at=end), throttle("acme", 1.0, 1))
    clock = [NOW]
    guard = guard_at(valkey, clock)
    for hours in range(0, 120, 7):
        clock[0] = NOW + hours * 3600.0
        result = guard.check("k", "m")
        assert (result.verdict, result.retry_after, result.reset_at) == ("block", None, end)
    clock[0] = end
    store.write_marks(marks(at=end, offset=11), now=end)
    assert guard.check("k", "m").allowed


def test_the_garbage_collector_cannot_refill_a_bucket(valkey) -> None:
    publish(Store(valkey), throttle("payments", 0.5, 1, expires_at=NOW + 3600))
    guard_at(valkey, [NOW]).check("k", "m")
    assert valkey.ttl("{sb}:b:payments|*|p") >= DAY + 3590


def test_a_spoilt_bucket_is_a_full_one(valkey) -> None:
    publish(Store(valkey), throttle("payments", 0.5, 2))
    for rubbish in ("", "x", "nan", "1 2 3", "a b"):
        valkey.set("{sb}:b:payments|*|p", rubbish)
        assert guard_at(valkey, [NOW]).check("k", "m").remaining == 1
