"""What a check answers for what lies in Redis: one script run, the clock an argument."""

import json

import pytest

from gateway_samples import DAY, NODES, NOW, chain, decision, link, marks, publish, stamp, throttle, untagged
from spendbrake.actions.gateway.contract import Chain
from spendbrake.actions.gateway.guard import CHECK, Guard
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import VERDICTS, Scope


class Asked:
    """A store and a guard on one server, and a clock that is set by hand."""

    def __init__(self, client) -> None:
        self.client = client
        self.store = Store(client)
        self.now = NOW
        self.guard = Guard(client, clock=lambda: self.now)

    def check(self, model="gpt-5", key="k", **more):
        return self.guard.check(key, model, **more)

    def verdict(self, *args, **more) -> str:
        return self.check(*args, **more).verdict


@pytest.fixture
def asked(valkey) -> Asked:
    return Asked(valkey)


def test_a_key_without_decisions_is_allowed(asked: Asked) -> None:
    publish(asked.store)
    result = asked.check()
    assert (result.verdict, result.status, result.model, result.known, result.marks) == (
        "allow", 200, "gpt-5", "key", "fresh",
    )  # fmt: skip
    assert result.allowed
    assert result.headers() == {}
    assert not asked.guard.unavailable


@pytest.mark.parametrize("node", NODES)
def test_a_block_on_any_ancestor_refuses_and_says_why(asked: Asked, node: str) -> None:
    publish(asked.store, decision(node, reset_at=NOW + 3 * DAY, expires_at=NOW + 3 * DAY))
    result = asked.check()
    assert not result.allowed
    assert (result.verdict, result.status, result.code, result.node) == ("block", 403, "budget_exceeded", node)
    assert (result.reason, result.action_id, result.policy) == (f"{node}: block", f"a-{node}-p-10", "p")
    assert (result.reset_at, result.retry_after) == (NOW + 3 * DAY, None)


def test_a_block_on_a_stranger_does_not_bind(asked: Asked) -> None:
    publish(asked.store, decision("search"))
    assert asked.verdict() == "allow"


@pytest.mark.parametrize("milder", VERDICTS)
@pytest.mark.parametrize("stricter", VERDICTS)
def test_the_strictest_of_two_ancestors_holds(asked: Asked, milder: str, stricter: str) -> None:
    if VERDICTS.index(milder) > VERDICTS.index(stricter):
        milder, stricter = stricter, milder
    rate = {"max_rps": 1000.0, "model": "small"}
    for node, other in (("payments", "acme"), ("acme", "payments")):
        asked.client.flushdb()
        publish(asked.store, decision(node, stricter, **rate), decision(other, milder, **rate))
        expected = "allow" if stricter == "throttle" else stricter
        assert asked.verdict() == expected


def test_among_equals_the_one_that_ends_last_answers(asked: Asked) -> None:
    publish(
        asked.store,
        decision("key-1", reset_at=NOW + 300),
        decision("acme", reset_at=NOW + 9 * DAY, expires_at=NOW + 9 * DAY),
        decision("payments", reset_at=NOW + DAY),
    )
    assert asked.check().node == "acme"


def test_among_full_equals_the_nearest_answers(asked: Asked) -> None:
    publish(asked.store, *(decision(node) for node in reversed(NODES)))
    assert asked.check().node == "key-1"


def test_an_allow_with_a_later_stamp_lifts(asked: Asked) -> None:
    publish(asked.store, decision("payments", offset=10))
    assert asked.verdict() == "block"
    asked.store.write_decisions([decision("payments", "allow", offset=11)], now=NOW)
    assert asked.verdict() == "allow"
    asked.store.write_decisions([decision("payments", "block", offset=10)], now=NOW)
    assert asked.verdict() == "allow"


def test_the_reader_ends_a_decision_at_its_expiry_itself(asked: Asked) -> None:
    publish(asked.store, decision("payments", expires_at=NOW + 60, reset_at=NOW + 60))
    asked.store.write_marks(marks(at=NOW + 50, offset=11), now=NOW)
    asked.now = NOW + 59.999
    assert asked.verdict() == "block"
    asked.now = NOW + 60
    assert asked.verdict() == "allow"
    assert asked.client.exists("{sb}:d:payments") == 1


def test_a_block_of_last_month_does_not_reach_into_this_one(asked: Asked) -> None:
    end_of_month = NOW + 10 * DAY
    publish(asked.store, decision("payments", policy="cap", reset_at=end_of_month, expires_at=end_of_month))
    for at, expected in ((end_of_month - 1, "block"), (end_of_month, "allow"), (end_of_month + DAY, "allow")):
        asked.now = at
        assert asked.verdict() == expected


@pytest.mark.parametrize(
    ("registered", "said", "expected"),
    [
        ("dev", None, "block"),
        ("prod", None, "allow"),
        (None, "dev", "block"),
        (None, "staging", "block"),
        (None, "prod", "allow"),
        (None, None, "allow"),
        ("dev", "prod", "block"),
        ("prod", "dev", "allow"),
    ],
)
def test_the_registered_environment_wins_over_the_said_one(asked: Asked, registered, said, expected) -> None:
    publish(asked.store, decision("payments", scope=Scope(environment=("dev", "staging"))), environment=registered)
    assert asked.verdict(environment=said) == expected


@pytest.mark.parametrize(
    ("patterns", "model", "bound"),
    [
        (("gpt-5",), "gpt-5", True),
        (("gpt-5",), "gpt-5-mini", False),
        (("gpt-5*",), "gpt-5-mini", True),
        (("claude-*", "gpt-4.1"), "gpt-4.1", True),
        (("gpt-4.1",), "gpt-4x1", False),
        (("*",), "anything", True),
        (("*-mini",), "gpt-5-mini", True),
        (("*-mini",), "gpt-5-mini-2", False),
        (("a*a",), "a", False),
        (("a*a",), "aa", True),
        (("a*b*c",), "axxbyyc", True),
        (("a*b*c",), "axxcyyb", False),
        (("%w*", "[a-z]", "g?t"), "gpt", False),
        ((), "gpt-5", False),
    ],
)
def test_a_decision_about_models_binds_those_only(asked: Asked, patterns, model: str, bound: bool) -> None:
    publish(asked.store, decision("payments", scope=Scope(models=patterns)))
    assert asked.verdict(model) == ("block" if bound else "allow")


def test_a_decision_about_keys_binds_those_only(asked: Asked) -> None:
    publish(asked.store, decision("payments", scope=Scope(keys=("k", "other"))))
    asked.store.write_keys({"l": chain()}, now=NOW)
    assert asked.verdict(key="k") == "block"
    assert asked.verdict(key="l") == "allow"


def test_a_decision_about_a_key_ends_with_its_node_when_the_key_moves(asked: Asked) -> None:
    publish(asked.store, decision("payments", scope=Scope(keys=("k",))))
    moved = Chain(links=(link("search", "usage.v1/3"),), team="search", stamp=stamp(1, epoch=2))
    asked.store.write_keys({"k": moved}, now=NOW)
    assert asked.verdict() == "allow"


def test_environment_and_model_of_one_scope_must_both_fit(asked: Asked) -> None:
    publish(asked.store, decision("payments", scope=Scope(environment=("dev",), models=("gpt-5",))))
    assert asked.verdict("gpt-5", environment="dev") == "block"
    assert asked.verdict("gpt-5", environment="prod") == "allow"
    assert asked.verdict("gpt-4", environment="dev") == "allow"


def test_a_downgrade_names_the_model_to_use_and_is_announced(asked: Asked) -> None:
    publish(asked.store, decision("payments", "downgrade", model="small", code="downgraded"))
    result = asked.check("large")
    assert (result.verdict, result.allowed, result.status, result.model) == ("downgrade", True, 200, "small")
    assert result.headers()["x-spendbrake-model"] == "small"
    assert asked.check("small").verdict == "allow"


def test_the_model_of_a_downgrade_is_judged_again(asked: Asked) -> None:
    to_mid = decision("payments", "downgrade", model="mid", scope=Scope(models=("large",)))
    to_small = decision("acme", "downgrade", model="small", scope=Scope(models=("mid",)))
    publish(asked.store, to_mid, to_small)
    assert asked.check("large").model == "small"
    asked.store.write_decisions([decision("key-1", scope=Scope(models=("small",)))], now=NOW)
    assert asked.verdict("large") == "block"


def test_downgrades_in_a_circle_end(asked: Asked) -> None:
    publish(
        asked.store,
        decision("payments", "downgrade", model="b", scope=Scope(models=("a",))),
        decision("acme", "downgrade", model="a", scope=Scope(models=("b",))),
    )
    assert (asked.check("a").verdict, asked.check("a").model) == ("downgrade", "b")


@pytest.mark.parametrize(
    "raw",
    [
        '{"verdict":"quarantine","expires_at":9e9,"status":200}',
        '{"expires_at":9e9}',
        '{"verdict":["block"],"expires_at":9e9}',
        '{"verdict":"throttle","expires_at":9e9}',
        '{"verdict":"throttle","expires_at":9e9,"max_rps":0}',
        '{"verdict":"throttle","expires_at":9e9,"max_rps":"fast"}',
        '{"verdict":"downgrade","expires_at":9e9}',
        '{"verdict":"downgrade","expires_at":9e9,"model":null}',
        '{"verdict":"allowed"}',
        '{"verdict":"throttle","max_rps":5}',
        "rubbish",
        '"text"',
        "",
    ],
)
def test_what_cannot_be_obeyed_as_written_is_a_block(asked: Asked, raw: str) -> None:
    publish(asked.store)
    asked.client.hset("{sb}:d:payments", "*|p", raw)
    result = asked.check()
    assert (result.verdict, result.status, result.node) == ("block", 403, "payments")
    assert result.code in ("unknown_verdict", "unreadable_decision")


def test_nulls_of_a_foreign_writer_are_as_good_as_absent(asked: Asked) -> None:
    publish(asked.store)
    value = {"verdict": "queue", "expires_at": NOW + 5, "reset_at": None, "environment": None, "models": None}
    asked.client.hset("{sb}:d:payments", "*|p", json.dumps(value | {"code": None, "status": None}))
    result = asked.check()
    assert (result.verdict, result.status, result.code, result.reset_at) == ("queue", 429, "", None)


def test_an_unknown_key_is_answered_however_many_partitions_could_own_it(asked: Asked) -> None:
    asked.store.write_untagged(untagged(partitions=9_000), now=NOW)
    asked.store.write_marks(marks(at=NOW), now=NOW)
    field = {f"usage.v1/{n}": json.dumps({"at": NOW, "stamp": [1, 10]}) for n in range(9_000)}
    asked.client.hset("{sb}:m", mapping=field)
    result = asked.check(key="never-seen")
    assert (result.verdict, result.known, result.marks) == ("allow", "untagged", "fresh")


def test_an_unknown_key_gets_the_untagged_chain(asked: Asked) -> None:
    asked.store.write_untagged(untagged(), now=NOW)
    asked.store.write_marks(marks([f"usage.v1/{p}" for p in range(4)] + ["rollups.v1/0"]), now=NOW)
    result = asked.check(key="stranger")
    assert (result.verdict, result.known, result.marks) == ("allow", "untagged", "fresh")
    asked.store.write_decisions([decision("untagged")], now=NOW)
    result = asked.check(key="stranger")
    assert (result.verdict, result.known, result.node) == ("block", "untagged", "untagged")


@pytest.mark.parametrize("mode", ["open", "closed"])
@pytest.mark.parametrize("silent", [0, 1, 2, 3])
def test_a_key_counts_as_unknown_only_when_every_partition_has_spoken(asked: Asked, mode, silent: int) -> None:
    asked.store.write_untagged(untagged(partitions=4, mode=mode), now=NOW)
    spoken = [f"usage.v1/{p}" for p in range(4) if p != silent]
    asked.store.write_marks(marks([*spoken, "rollups.v1/0"]), now=NOW)
    result = asked.check(key="stranger")
    assert result.marks == "missing"
    assert result.verdict == ("allow" if mode == "open" else "block")


def test_a_project_the_caller_names_adds_its_chain(asked: Asked) -> None:
    publish(asked.store, decision("search-ui"))
    links = (link("search-ui", "usage.v1/3"), *chain().links[2:])
    project = Chain(links=links, team="payments", stamp=stamp())
    asked.store.write_projects({("payments", "ui"): project}, now=NOW)
    assert asked.verdict() == "allow"
    assert asked.check(project="ui").node == "search-ui"
    assert asked.verdict(project="unheard-of") == "allow"


def test_a_registered_project_cannot_be_talked_away(asked: Asked) -> None:
    publish(asked.store, decision("search-ui"), project="checkout")
    project = Chain(links=(link("search-ui", "usage.v1/3"),), team="payments", stamp=stamp())
    asked.store.write_projects({("payments", "ui"): project}, now=NOW)
    assert asked.verdict(project="ui") == "allow"


@pytest.mark.parametrize("name", ["", "a b", "x" * 5000, "}{", "{other}:k:k", "é\ud800\x00\r\n", "%s", "*"])
def test_no_name_a_caller_can_send_breaks_a_check(asked: Asked, name: str) -> None:
    asked.store.write_untagged(untagged(partitions=0), now=NOW)
    publish(asked.store)
    assert asked.check(key=name, model=name, environment=name, project=name).known in ("untagged", "key")
    assert asked.check(name, key="k", environment=name, project=name).verdict == "allow"
    assert not asked.guard.unavailable["error"]


def test_a_check_is_one_round_trip(asked: Asked) -> None:
    publish(asked.store, decision("payments", "queue"), throttle("acme", 5.0))
    asked.check()
    asked.client.config_resetstat()
    for _ in range(10):
        asked.check()
    stats = asked.client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 10
    sent = asked.client.info("stats")["total_reads_processed"]
    assert sent <= 10 + 3, "ten checks, and the three commands of this test"


def test_the_script_knows_the_same_verdicts() -> None:
    order = ", ".join(f"{verdict} = {rank}" for rank, verdict in enumerate(VERDICTS))
    assert f"RANK = {{{order}}}".encode() in CHECK.text
