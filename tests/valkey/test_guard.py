"""Guard and AsyncGuard while Redis is slow, dead, emptied or restarted: never an exception, always a stated answer."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis.asyncio

from gateway_samples import DAY, NOW, chain, decision, marks, publish, throttle, untagged
from servers.valkey import Valkey, free_port
from spendbrake.actions.gateway.guard import CONNECTIONS, STALE_AFTER_S, AsyncGuard, Guard
from spendbrake.actions.gateway.store import Store
from spendbrake.actions.gateway.verdict import Refused
from spendbrake.schemas.decision import Scope

CLOSED = ("open", "open", "open", "open", "closed")
LAST = ("open", "last_decision", "open", "open", "open")


class Both:
    """A Guard and an AsyncGuard on one URL, asked the same; their answers must agree."""

    def __init__(self, url: str, **options) -> None:
        self.now = NOW
        self._loop = asyncio.new_event_loop()
        options = {"timeout_s": 2.0, **options}
        self.sync = Guard(url, clock=lambda: self.now, **options)
        self.other = AsyncGuard(url, clock=lambda: self.now, **options)

    def check(self, model: str = "m", key: str = "k", **more):
        result = self.sync.check(key, model, **more)
        assert self._loop.run_until_complete(self.other.check(key, model, **more)) == result
        return result

    def close(self) -> None:
        self.sync.close()
        self._loop.run_until_complete(self.other.aclose())
        self._loop.close()


@pytest.fixture
def both(own_valkey: Valkey):
    made = []

    def make(**options) -> Both:
        made.append(Both(own_valkey.url, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def put(server: Valkey, *decisions, **more) -> None:
    with server.client() as client:
        publish(Store(client), *decisions, **more)


@pytest.mark.parametrize(("mode", "verdict", "status"), [("open", "allow", 200), ("closed", "block", 503)])
def test_nobody_there_from_the_start(mode: str, verdict: str, status: int) -> None:
    guard = Both(f"redis://127.0.0.1:{free_port()}/0", on_unavailable=mode)
    result = guard.check()
    assert (result.verdict, result.status, result.source, result.marks) == (verdict, status, "unavailable", "unread")
    assert guard.sync.unavailable == guard.other.unavailable == {"connection": 1}
    guard.close()


@pytest.mark.parametrize("mode", ["open", "closed", "last_decision"])
def test_an_empty_redis_is_an_unavailable_one(own_valkey: Valkey, both, mode: str) -> None:
    guard = both(on_unavailable=mode)
    result = guard.check()
    assert result.verdict == ("block" if mode == "closed" else "allow")
    assert (result.known, result.marks, result.source) == ("none", "missing", "unavailable")
    assert guard.sync.unavailable == {"missing": 1}


def test_a_redis_that_lost_everything_repeats_the_last_decision(own_valkey: Valkey, both) -> None:
    put(own_valkey, decision("payments", expires_at=NOW + DAY), modes=LAST)
    guard = both()
    assert guard.check().source == "redis"
    own_valkey.empty()
    result = guard.check()
    assert (result.verdict, result.source, result.action_id) == ("block", "memory", "a-payments-p-10")
    guard.now = NOW + DAY
    assert guard.check().verdict == "allow"


def test_half_a_republish_is_not_taken_for_the_whole(own_valkey: Valkey, both) -> None:
    """Chains are back, the block and the marks are not yet."""
    put(own_valkey, decision("payments"), modes=LAST)
    guard = both()
    assert guard.check().verdict == "block"
    own_valkey.empty()
    with own_valkey.client() as client:
        Store(client).write_keys({"k": chain(LAST)}, now=NOW)
        result = guard.check()
        assert (result.verdict, result.source) == ("block", "memory")
        Store(client).write_marks(marks(), now=NOW)
        assert guard.check().verdict == "allow"


@pytest.mark.parametrize(("modes", "verdict"), [(("open",) * 5, "allow"), (CLOSED, "block"), (LAST, "allow")])
def test_an_old_mark_makes_the_set_unavailable(own_valkey: Valkey, both, modes, verdict: str) -> None:
    put(own_valkey, modes=modes)
    guard = both()
    guard.now = NOW + STALE_AFTER_S
    assert guard.check().marks == "fresh"
    guard.now = NOW + STALE_AFTER_S + 0.1
    result = guard.check()
    assert (result.marks, result.verdict, result.status == 503) == ("stale", verdict, verdict == "block")
    assert guard.sync.unavailable == {"stale": 1}


def test_only_the_modes_of_links_without_a_mark_count(own_valkey: Valkey, both) -> None:
    put(own_valkey, modes=CLOSED)
    with own_valkey.client() as client:
        client.hdel("{sb}:m", "usage.v1/3")
        assert both().check().verdict == "allow"
        client.hdel("{sb}:m", "rollups.v1/0")
        assert both().check().verdict == "block"


def test_standing_decisions_are_believed_without_marks(own_valkey: Valkey, both) -> None:
    """A dead worker lifts no block, whatever the mode."""
    put(own_valkey, decision("payments"))
    guard = both()
    guard.now = NOW + 3600
    result = guard.check()
    assert (result.verdict, result.status, result.marks, result.source) == ("block", 403, "stale", "redis")


def test_a_key_s_own_mode_holds_when_redis_dies(own_valkey: Valkey, both) -> None:
    put(own_valkey, modes=CLOSED)
    guard = both(on_unavailable="open")
    assert guard.check().allowed
    own_valkey.kill()
    assert guard.check().status == 503
    assert guard.check(model="never-asked-before").status == 503
    assert guard.check(key="never-asked-before").allowed


def test_a_dead_redis_repeats_the_last_decision_of_the_same_question(own_valkey: Valkey, both) -> None:
    about = Scope(models=("dear",))
    put(own_valkey, decision("payments", scope=about, expires_at=NOW + 60, reset_at=NOW + 60), modes=LAST)
    guard = both()
    assert (guard.check("dear").verdict, guard.check("cheap").verdict) == ("block", "allow")
    own_valkey.kill()
    assert (guard.check("dear").verdict, guard.check("cheap").verdict) == ("block", "allow")
    assert guard.check("dear").source == "memory"
    guard.now = NOW + 60
    assert guard.check("dear").verdict == "allow"


def test_a_question_as_long_as_its_caller_likes_is_answered_and_not_kept(own_valkey: Valkey, both) -> None:
    put(own_valkey, decision("payments"), modes=LAST)
    guard = both()
    kept, long = "m" * 1_000, "m" * 1_000_000
    assert (guard.check(kept).verdict, guard.check(long).verdict) == ("block", "block")
    own_valkey.kill()
    assert (guard.check(kept).source, guard.check(long).source) == ("memory", "unavailable")


def test_a_remembered_rate_goes_on_in_this_process(own_valkey: Valkey) -> None:
    put(own_valkey, throttle("payments", 2.0, 3), modes=("last_decision",) * 5)
    now = [NOW]
    with Guard(own_valkey.url, clock=lambda: now[0], timeout_s=2.0) as guard:
        assert guard.check("k", "m").remaining == 2
        own_valkey.kill()
        results = [guard.check("k", "m") for _ in range(3)]
        assert [r.verdict for r in results] == ["allow", "allow", "throttle"]
        assert (results[2].retry_after, results[2].status, results[2].source) == (0.5, 429, "memory")
        now[0] += 0.5
        assert [guard.check("k", "m").verdict for _ in range(2)] == ["allow", "throttle"]


def test_a_remembered_rate_counts_from_the_last_answer(own_valkey: Valkey) -> None:
    """The same bytes twice, a second apart, are not the same moment."""
    put(own_valkey, throttle("payments", 1.0, 1), modes=("last_decision",) * 5)
    now = [NOW]
    with Guard(own_valkey.url, clock=lambda: now[0], timeout_s=2.0) as guard:
        for now[0] in (NOW, NOW + 1.0):
            assert (guard.check("k", "m").verdict, guard.check("k", "n").verdict) == ("allow", "throttle")
        own_valkey.kill()
        now[0] = NOW + 1.5
        assert guard.check("k", "m").verdict == "throttle"


def test_an_empty_bucket_remembered_refills_too(own_valkey: Valkey) -> None:
    put(own_valkey, throttle("payments", 1.0, 1), modes=("last_decision",) * 5)
    now = [NOW]
    with Guard(own_valkey.url, clock=lambda: now[0], timeout_s=2.0) as guard:
        assert [guard.check("k", "m").verdict for _ in range(2)] == ["allow", "throttle"]
        own_valkey.kill()
        assert guard.check("k", "m").verdict == "throttle"
        now[0] += 1.0
        result = guard.check("k", "m")
        assert (result.verdict, result.code, result.retry_after) == ("allow", "", None)


def test_a_restart_is_survived_without_a_failed_check(own_valkey: Valkey, both) -> None:
    put(own_valkey)
    guard = both()
    assert guard.check().marks == "fresh"
    own_valkey.restart()
    put(own_valkey, decision("payments"))
    assert guard.check().verdict == "block"
    assert not guard.sync.unavailable
    assert not guard.other.unavailable


def test_scripts_flushed_are_sent_again(own_valkey: Valkey, both) -> None:
    put(own_valkey, decision("payments"))
    guard = both()
    assert guard.check().verdict == "block"
    with own_valkey.client() as client:
        client.script_flush()
    assert guard.check().verdict == "block"
    assert not guard.sync.unavailable


def test_a_frozen_redis_costs_the_time_out_and_no_more(own_valkey: Valkey) -> None:
    put(own_valkey)
    guard = Both(own_valkey.url, timeout_s=0.05)
    own_valkey.freeze()
    began = time.monotonic()
    result = guard.check()
    assert time.monotonic() - began < 5.0
    own_valkey.thaw()
    assert (result.verdict, result.source) == ("allow", "unavailable")
    assert guard.sync.unavailable == guard.other.unavailable == {"timeout": 1}
    guard.close()


def test_a_late_answer_is_never_read_as_the_next_one(own_valkey: Valkey) -> None:
    put(own_valkey, decision("payments", scope=Scope(models=("dear",))))
    guard = Both(own_valkey.url, timeout_s=0.05)
    own_valkey.freeze()
    for _ in range(3):
        assert guard.check("dear").source == "unavailable"
    own_valkey.thaw()
    patient = Both(own_valkey.url)
    for each in (guard, patient):
        each.sync.check("k", "cheap")
    assert [patient.check(m).verdict for m in ("cheap", "dear", "cheap")] == ["allow", "block", "allow"]
    guard.close()
    patient.close()


async def test_a_cancelled_check_leaves_no_answer_behind(own_valkey: Valkey) -> None:
    put(own_valkey, decision("payments", scope=Scope(models=("dear",))))
    pool = redis.asyncio.BlockingConnectionPool.from_url(own_valkey.url, max_connections=1)
    guard = AsyncGuard(redis.asyncio.Redis.from_pool(pool), clock=lambda: NOW, timeout_s=5.0)
    assert (await guard.check("k", "dear")).verdict == "block"
    own_valkey.freeze()
    task = asyncio.create_task(guard.check("k", "dear"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    own_valkey.thaw()
    assert (await guard.check("k", "cheap")).verdict == "allow"
    assert (await guard.check("k", "dear")).verdict == "block"
    await guard.aclose()
    await pool.aclose()


async def test_more_checks_at_once_than_connections_wait_their_turn(own_valkey: Valkey) -> None:
    put(own_valkey)
    guard = AsyncGuard(own_valkey.url, clock=lambda: NOW, timeout_s=30.0)
    results = await asyncio.gather(*(guard.check("k", f"m{n}") for n in range(500)))
    assert [r.model for r in results] == [f"m{n}" for n in range(500)]
    assert not guard.unavailable
    with own_valkey.client() as client:
        assert client.info("clients")["connected_clients"] <= CONNECTIONS + 1
    await guard.aclose()


def test_threads_share_one_guard(own_valkey: Valkey) -> None:
    put(own_valkey, throttle("payments", 0.001, 40))
    with Guard(own_valkey.url, clock=lambda: NOW, timeout_s=10.0) as guard, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: guard.check("k", f"m{n % 3}"), range(100)))
    assert sum(r.allowed for r in results) == 40
    assert not guard.unavailable


def test_what_is_not_understood_is_an_error_not_an_exception(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.set("{sb}:k:k", "a string where a hash belongs")
    guard = Both(own_valkey.url, on_unavailable="closed")
    assert guard.check().status == 503
    assert guard.sync.unavailable == {"error": 1}
    guard.close()


def test_a_chain_of_a_later_contract_is_unavailable_not_unknown(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.hset("{sb}:k:k", "chain", '{"v":2,"nodes":[["a","b","c"]]}')
        Store(client).write_untagged(untagged(partitions=0), now=NOW)
        Store(client).write_marks(marks(), now=NOW)
    guard = Both(own_valkey.url, on_unavailable="closed")
    assert (guard.check().status, guard.check().known) == (503, "none")
    assert guard.check(key="stranger").known == "untagged"
    guard.close()


def test_a_mode_of_a_later_contract_is_handled_as_closed(own_valkey: Valkey, both) -> None:
    put(own_valkey, modes=("open", "open", "ask_the_owner", "open", "open"))
    guard = both()
    assert guard.check().verdict == "allow"
    guard.now = NOW + STALE_AFTER_S + 1
    assert guard.check().status == 503
    own_valkey.kill()
    assert guard.check().status == 503


def test_refusals_can_be_raised(own_valkey: Valkey, both) -> None:
    put(own_valkey, decision("payments"))
    with pytest.raises(Refused, match="payments: block") as caught:
        both().check().raise_for_verdict()
    assert caught.value.result.action_id == "a-payments-p-10"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_unavailable", "opened"),
        ("stale_after_s", 0),
        ("stale_after_s", float("nan")),
        ("memory", 0),
        ("prefix", ""),
    ],
)
def test_bad_settings_are_named(option: str, value) -> None:
    with pytest.raises(ValueError, match=option):
        Guard("redis://127.0.0.1:1/0", **{option: value})


def test_deployments_with_other_prefixes_do_not_meet(own_valkey: Valkey) -> None:
    put(own_valkey, decision("payments"))
    with own_valkey.client() as client:
        publish(Store(client, prefix="sim"))
        assert Guard(client, clock=lambda: NOW, prefix="sim").check("k", "m").verdict == "allow"
        assert Guard(client, clock=lambda: NOW).check("k", "m").verdict == "block"
