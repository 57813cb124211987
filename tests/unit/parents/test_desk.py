"""Requests, approvals and grants through the logs: from the ask to the lifted block, on whatever partitions."""

import random
import string
from dataclasses import replace
from typing import Any

import pytest

from enginelog import SECRET
from rollupslog import START, USD, Deployment, Teams, engine, internal, tree
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command
from spendbrake.schemas.finding import COMMAND, Finding
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import open_internal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.parents.rows import copy_parent, restore

PARTS = 5
HOUR = 3_600.0


def document(reserve: int = 50, **more: Any) -> dict[str, Any]:
    file = tree(("acme", "organization", None, 1_000), ("bg", "billing_group", "acme", 100), **more)
    file["nodes"][0]["reserve_usd"] = reserve
    file["nodes"].append({"id": "pay", "level": "team", "parent": "bg", "monthly_budget_usd": 20})
    return file


ASKED = Command(
    id="r-1", kind="request", node="bg", by="ada", role="operator", issued_at=START, amount=40 * USD,
    expires_at=START + 24 * HOUR, reason="launch",
)  # fmt: skip


def said(kind: str, by: str, role: str, request: str = "r-1", node: str = "bg", home: str = "") -> Command:
    return Command(
        id=f"{request}/{kind}/{by}", kind=kind, node=node, home=home, by=by, role=role, issued_at=START, request=request
    )


def put(at: Deployment, command: Command, now: float, desk: str = "acme") -> None:
    at.put(internal("command", now, desk.encode(), encode(command)))


def approve(at: Deployment, now: float, **more: Any) -> None:
    put(at, said("approve", "fay", "finance", **more), now)
    put(at, said("approve", "eli", "engineering", **more), now + 1)


def over_the_cap() -> tuple[Deployment, Teams]:
    at, teams = Deployment(engine(document(), partitions=PARTS)), Teams()
    teams.spend("pay", START, 100 * USD)
    at.put(*teams.tell("bg", START, "pay"))
    return at, teams


def limits(at: Deployment) -> list[tuple[str, str]]:
    found = [decode(Action, out.value or b"") for out in at.records("actions.v1")]
    return [(each.node, each.verdict) for each in found if each.effect == "limits"]


def told(at: Deployment) -> list[tuple[str, str]]:
    found = [decode(Finding, out.value or b"") for out in at.records("findings.v1")]
    return [(each.state, each.reason) for each in found if each.detector == COMMAND]


def refused(at: Deployment) -> list[str]:
    return [dict(out.headers)["sb-reason"].decode() for out in at.records("usage.dlq.v1")]


def test_two_approvals_lift_the_block_of_a_billing_group() -> None:
    at, teams = over_the_cap()
    assert limits(at) == [("bg", "block")]
    put(at, ASKED, START + 10)
    approve(at, START + 20)
    at.tick(START + 30)
    assert limits(at) == [("bg", "block"), ("bg", "allow")]
    assert told(at)[0] == (
        "open",
        "bg asks for $40.00 more until 2026-01-06 00:00 UTC: request r-1 is open, engineering and finance must "
        "approve; request by ada (operator): launch",
    )
    assert [state for state, _ in told(at)] == ["open", "update", "resolve", "open"]
    teams.spend("pay", START + 40, 40 * USD)
    at.put(*teams.tell("bg", START + 40, "pay"))
    assert limits(at)[2:] == [("bg", "block")]


def test_the_grant_of_a_team_is_written_into_the_log_of_the_team() -> None:
    at, _ = over_the_cap()
    put(at, replace(ASKED, node="pay", home="pay"), START + 10)
    approve(at, START + 20, node="pay", home="pay")
    (out,) = [each for each in at.records(USAGE.name)]
    assert (out.key, out.partition) == (b"pay", partition_of(b"pay", PARTS))
    open_internal("command", USAGE.name, out.key, out.value, out.headers, (SECRET,))
    grant = decode(Command, out.value or b"")
    assert (grant.kind, grant.node, grant.home, grant.request, grant.amount) == ("grant", "pay", "pay", "r-1", 40 * USD)


def test_a_grant_ends_at_its_time() -> None:
    at, _ = over_the_cap()
    put(at, replace(ASKED, expires_at=START + HOUR), START + 10)
    approve(at, START + 20)
    at.tick(START + HOUR)
    assert limits(at) == [("bg", "block"), ("bg", "allow"), ("bg", "block")]


def test_an_exception_of_a_billing_group_lifts_and_is_ended() -> None:
    at, _ = over_the_cap()
    put(at, replace(ASKED, amount=0, policy="cap"), START + 10)
    approve(at, START + 20)
    put(at, said("withdraw", "ada", "operator"), START + 30)
    assert limits(at) == [("bg", "block"), ("bg", "allow"), ("bg", "block")]


def test_what_is_said_twice_or_replayed_from_another_partition_changes_nothing() -> None:
    at, _ = over_the_cap()
    for now in (START + 10, START + 40):
        put(at, ASKED, now)
        approve(at, now)
    assert limits(at) == [("bg", "block"), ("bg", "allow")]
    assert refused(at) == []


@pytest.mark.parametrize(
    ("command", "desk", "reason"),
    [
        (replace(ASKED, amount=51 * USD), "acme", "reserve_exceeded"),
        (replace(ASKED, node="acme"), "acme", "bad_command"),
        (replace(ASKED, amount=0, policy="nothing of the kind"), "acme", "unknown_policy"),
        (replace(ASKED, node="nowhere"), "acme", "unknown_node"),
        (replace(ASKED, node="pay"), "acme", "unknown_node"),
        (replace(ASKED, node="pay", home="pay"), "bg", "misplaced"),
        (said("approve", "fay", "finance", "r-9"), "acme", "unknown_request"),
        (said("grant", "eve", "admin"), "acme", "unknown_request"),
        (said("exempt", "eve", "admin"), "bg", "unknown_policy"),
    ],
)
def test_what_is_refused_says_why(command: Command, desk: str, reason: str) -> None:
    at, _ = over_the_cap()
    put(at, command, START + 10, desk)
    assert (refused(at), limits(at)) == ([reason], [("bg", "block")])
    ((state, what),) = told(at)
    assert state == ("resolve" if command.kind == "request" else "update")
    assert what.startswith(f"{command.node} is refused this: ")
    assert f"; {command.kind} by {command.by} ({command.role})" in what


def test_who_asks_for_more_than_the_reserve_has_or_approves_their_own_request_hears_so() -> None:
    at, _ = over_the_cap()
    put(at, replace(ASKED, id="r-0", amount=51 * USD), START + 5)
    put(at, ASKED, START + 10)
    put(at, said("approve", "ada", "finance"), START + 20)
    assert [what for _, what in told(at)][::2] == [
        "bg is refused this: the reserve has $50.00 left; request by ada (operator): launch",
        "bg is refused this: nobody approves what they asked for; approve by ada (finance).",
    ]


def test_a_restart_between_the_approvals_changes_nothing() -> None:
    at, _ = over_the_cap()
    put(at, ASKED, START + 10)
    put(at, said("approve", "fay", "finance"), START + 20)
    for number, state in list(at.states.items()):
        state.mark()
        units = [copy_parent(state, node) for node in state.parents]
        rows = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
        again = at.of.new_state(number, 1)
        restore(again, rows, None)
        again.applied, again.now = state.applied, state.now
        at.states[number] = again
    put(at, said("approve", "eli", "engineering"), START + 30)
    at.tick(START + 31)
    assert limits(at) == [("bg", "block"), ("bg", "allow")]


@pytest.mark.parametrize("other", [[], [replace(ASKED, id="r-2", amount=USD)]])
def test_a_request_of_long_ago_is_refused_and_stops_no_worker(other: list[Command]) -> None:
    at, _ = over_the_cap()
    put(at, ASKED, START + 10)
    approve(at, START + 20)
    for each in other:
        put(at, each, START + 30)
    put(at, said("withdraw", "ada", "operator"), START + 71 * 24 * HOUR)
    assert refused(at) == ["unknown_request"]
    assert told(at)[-1][1].startswith("bg is refused this: no such request here")


def test_what_a_desk_has_granted_it_ends_though_the_node_has_another_desk_by_now() -> None:
    moved = document()
    moved["nodes"][1]["reserve_usd"] = 30
    at = Deployment(engine(document(), moved, begins=(START + 100,), partitions=PARTS))
    of_pay = {"node": "pay", "home": "pay"}
    for name in ("r-1", "r-2"):
        put(at, replace(ASKED, id=name, amount=0, policy="cap", **of_pay), START + 10)
    approve(at, START + 20, **of_pay)
    put(at, said("withdraw", "ada", "operator", **of_pay), START + 200)
    approve(at, START + 210, request="r-2", **of_pay)
    put(at, said("deny", "ada", "operator", request="r-2", **of_pay), START + 220)
    assert [decode(Command, out.value or b"").kind for out in at.records(USAGE.name)] == ["exempt", "withdraw"]
    assert refused(at) == ["misplaced", "misplaced"], "whose reserve it is by now is asked anew"
    assert "its desk is 'bg' now: ask again" in told(at)[-2][1]
    assert "request r-2 is denied" in told(at)[-1][1]
    found = [decode(Finding, out.value or b"") for out in at.records("findings.v1")]
    assert {each.evidence["desk"] for each in found if "asks for" in each.reason} == {"acme"}


def test_a_top_up_is_refused_where_there_is_nothing_to_raise() -> None:
    file = document(defaults={"project": {"monthly_budget_usd": 5}, "key": {}})
    file["nodes"].append({"id": "free", "level": "team", "parent": "bg"})
    at = Deployment(engine(file, partitions=PARTS))
    for number, node in enumerate(("free", "pay/shop", "key-1")):
        home = "free" if node == "free" else "pay"
        put(at, replace(ASKED, id=f"r-{number}", node=node, home=home), START + 10)
    assert refused(at) == ["no_limit", "no_limit"]
    assert [what.split(":")[0] for _, what in told(at)] == [
        "free is refused this", "pay/shop asks for $40.00 more until 2026-01-06 00", "key-1 is refused this",
    ]  # fmt: skip


def news(at: Deployment) -> list[tuple[float, bool, str]]:
    found = [decode(Action, out.value or b"") for out in at.records("actions.v1")]
    return [(each.time - START, "resolved" in each.params, each.reason) for each in found if each.effect == "slack"]


def test_the_alert_of_a_request_tells_each_approval_and_stands_until_it_closes() -> None:
    desk = {"name": "desk", "when": {"detectors": ["command"]}, "rungs": [{"name": "tell", "notify": ["ops"]}]}
    file = document(destinations={"ops": {"type": "slack", "channel": "#ops"}})
    at = Deployment(engine(file | {"policies": [*file["policies"], desk]}, partitions=PARTS))
    put(at, ASKED, START + 10)
    at.tick(START + 5 * HOUR)
    put(at, said("approve", "fay", "finance"), START + 6 * HOUR)
    at.tick(START + 23.9 * HOUR)
    assert [(at_s, over) for at_s, over, _ in news(at)] == [(10.0, False), (6 * HOUR, False)]
    assert "request r-1 is open, engineering must approve; approve by fay" in news(at)[-1][2]
    at.tick(START + 24 * HOUR)
    assert news(at)[2:] == [(24 * HOUR, True, "Its time is over")]
    put(at, replace(ASKED, id="r-2", expires_at=START + 48 * HOUR), START + 25 * HOUR)
    approve(at, START + 25.1 * HOUR, request="r-2")
    at.tick(START + 40 * HOUR)
    given = [(over, what) for _, over, what in news(at) if what.startswith("bg has $40.00 more until 2026-01-07 00:00")]
    assert [over for over, _ in given] == [False, True], "that news of a grant are told is no end of the grant"


def test_a_desk_has_room_in_its_row_whatever_is_asked_and_is_nobody_s_alone() -> None:
    rnd, file = random.Random(1), document(destinations={"ops": {"type": "slack", "channel": "#ops"}})
    told = {"when": {"detectors": ["command"]}, "rungs": [{"name": "tell", "notify": ["ops"]}]}
    file["policies"] += [told | {"name": "desk"}, told | {"name": "audit"}]
    at = Deployment(engine(file, partitions=PARTS))
    for i in range(400):
        reason = "".join(rnd.choices(string.ascii_letters, k=300))
        put(at, replace(ASKED, id=f"r-{i}", by="eve" if i % 4 else f"p-{i}", amount=USD, reason=reason), START + 10 + i)
    put(at, replace(ASKED, id="long", by="eve", reason="x" * 301), START + 500)
    assert set(refused(at)) == {"too_many_requests", "bad_command"}
    (state,) = [each for each in at.states.values() if "acme" in each.parents]
    state.mark()
    asked = [each.asked.by for each in state.parents["acme"].desk]
    assert (len(asked), max(asked.count(by) for by in asked)) == (40, 20)
    assert sum(len(row.value) for row in copy_parent(state, "acme").heads) < 200_000
    for day in range(1, 60):
        put(
            at,
            replace(ASKED, id=f"d-{day}", amount=USD, expires_at=START + day * 24 * HOUR + HOUR),
            START + day * 24 * HOUR,
        )
        put(
            at,
            replace(ASKED, id=f"e-{day}", amount=USD, expires_at=START + day * 24 * HOUR + HOUR),
            START + day * 24 * HOUR,
        )
    assert 90 < len(list(state.parents["acme"].desk)) <= 100
    assert "e-59" in state.parents["acme"].desk.requests, "what is over makes room"
