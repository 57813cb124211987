"""Names and values of the gateway contract, to the byte: foreign readers depend on them."""

from dataclasses import replace

import pytest

from gateway_samples import NOW, chain, decision, marks, stamp, throttle, untagged
from spendbrake.actions.gateway.contract import Layout, Link
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.decision import STATUS, VERDICTS, Scope

LAYOUT = Layout()


def test_a_decision_is_written_so() -> None:
    full = throttle(
        "payments", 10.0, 20, policy="spike", reset_at=NOW + 60, action_id="5f3a", reason="4.2 times é",
        scope=Scope(environment=("dev", "ci"), models=("gpt-5*",)),
    )  # fmt: skip
    (entry,) = LAYOUT.decision_entries(full)
    assert (entry.key, entry.field) == (b"{sb}:d:payments", b"environment=ci,dev;models=gpt-5*|spike")
    assert (entry.stamp, entry.ends_at) == (full.stamp, full.expires_at)
    assert (
        entry.payload
        == (
            '{"verdict":"throttle","status":429,"code":"rate_limited","reason":"4.2 times é","action_id":"5f3a",'
            '"policy":"spike","partition":3,"stamp":[1,10],"expires_at":1763931600.0,"reset_at":1763845260.0,'
            '"max_rps":10.0,"burst":20,"environment":["dev","ci"],"models":["gpt-5*"]}'
        ).encode()
    )


def test_a_lifted_decision_begins_as_the_script_expects() -> None:
    (entry,) = LAYOUT.decision_entries(decision("payments", "allow"))
    assert entry.payload.startswith(b'{"verdict":"allow"')


def test_a_decision_about_keys_is_written_beside_each() -> None:
    entries = LAYOUT.decision_entries(decision("payments", scope=Scope(keys=("k", "l"))))
    assert [(e.key, e.field) for e in entries] == [
        (b"{sb}:k:k", b"payments|keys=k,l|p"),
        (b"{sb}:k:l", b"payments|keys=k,l|p"),
    ]
    assert LAYOUT.decision_entries(decision("payments", scope=Scope(keys=()))) == ()


def test_a_chain_is_written_so() -> None:
    links = (Link("key-1", "usage.v1", 3, "closed"), Link("acme", "rollups.v1", 0))
    entry = LAYOUT.chain_entry(LAYOUT.key("k"), replace(chain(), links=links, environment="prod"), NOW)
    assert (entry.key, entry.field) == (b"{sb}:k:k", b"chain")
    assert entry.payload == (
        b'{"v":1,"stamp":[1,10],"team":"payments","environment":"prod",'
        b'"nodes":[["key-1","usage.v1/3","closed"],["acme","rollups.v1/0","open"]]}'
    )
    assert b'"partitions":4' in LAYOUT.chain_entry(LAYOUT.untagged, untagged(4), NOW).payload


def test_a_mark_is_written_so() -> None:
    (mark,) = marks(["usage.v1/3"])
    (entry,) = LAYOUT.mark_entries(mark)
    assert (entry.key, entry.field, entry.payload) == (
        b"{sb}:m", b"usage.v1/3", b'{"at":1763845200.0,"stamp":[1,10]}',
    )  # fmt: skip


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_carries_its_status(verdict) -> None:
    (entry,) = LAYOUT.decision_entries(decision("n", verdict, max_rps=1.0, model="m"))
    assert f'"verdict":"{verdict}","status":{STATUS[verdict]},'.encode() in entry.payload


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (decision("n", "quarantine"), r"decision\.verdict.*'quarantine'"),
        (decision("n", "throttle"), r"decision\.max_rps.*None"),
        (throttle("n", -1.0), r"decision\.max_rps.*-1\.0"),
        (throttle("n", float("inf")), r"decision\.max_rps.*inf"),
        (throttle("n", 1.0, 0), r"decision\.burst.*0"),
        (decision("n", "downgrade"), r"decision\.model.*None"),
        (decision("n", expires_at=float("nan")), r"decision\.expires_at.*nan"),
        (decision("n", reset_at=float("inf")), r"decision\.reset_at.*inf"),
        (decision("n", stamp=stamp(2**53)), r"decision\.stamp.*9007199254740992"),
        (decision("n", stamp=stamp(1, epoch=-1)), r"decision\.stamp.*-1"),
    ],
)
def test_what_no_gateway_could_obey_is_refused_by_name(bad, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        LAYOUT.decision_entries(bad)


@pytest.mark.parametrize("prefix", ["", "{sb}", "a}b"])
def test_a_prefix_that_would_spoil_the_hash_tag_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Layout(prefix)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_only_allow_and_downgrade_let_a_call_pass(verdict) -> None:
    assert CheckResult(verdict=verdict, status=200, model="m").allowed == (verdict in ("allow", "downgrade"))


def test_headers_tell_why_and_when() -> None:
    block = CheckResult(
        verdict="block", status=403, model="m", code="budget_exceeded", action_id="5f", reset_at=NOW + 0.4
    )
    assert block.headers() == {
        "x-spendbrake-verdict": "block",
        "x-spendbrake-code": "budget_exceeded",
        "x-spendbrake-action": "5f",
        "x-spendbrake-reset-at": "1763845200",
    }
    slow = CheckResult(verdict="throttle", status=429, model="m", code="rate_limited", retry_after=2.000001)
    assert slow.headers()["retry-after"] == "3"


def test_a_rollout_announces_what_it_would_do() -> None:
    spared = CheckResult(verdict="allow", status=200, model="m", would="block", would_action="5f")
    assert spared.headers() == {"x-spendbrake-would": "block", "x-spendbrake-would-action": "5f"}


def test_a_share_of_the_keys_is_written_and_must_be_one() -> None:
    (entry,) = LAYOUT.decision_entries(decision("n", percent=12.5))
    assert b'"percent":12.5' in entry.payload
    for percent in (0.0, 101.0, float("nan")):
        with pytest.raises(ValueError, match=r"decision\.percent"):
            LAYOUT.decision_entries(decision("n", percent=percent))
