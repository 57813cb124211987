"""Commands of people in a team's log: a top-up lifts the block, once, for its time; an exception lifts without one."""

from typing import Any

from enginelog import SECRET, START, Log, event, play, policy, versions
from enginelog import engine as engine_of
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Approval, Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import COMMAND, Finding
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Outcome

USD = 10**9
DAY = 86_400.0
CAP = policy(defaults={"team": {"monthly_budget_usd": 10}, "key": {}})


def command(kind: str = "grant", name: str = "r-1/grant", **more: Any) -> Command:
    base: dict[str, Any] = dict(
        node="a", by="ada", role="operator", issued_at=START, request="r-1", amount=5 * USD, expires_at=START + DAY,
        reason="launch", approvals=(Approval(by="fay", role="finance"), Approval(by="eli", role="engineering")),
    )  # fmt: skip
    return Command(id=name, kind=kind, **(base | more))


def put(log: Log, order: Command, now: float, home: str = "a") -> None:
    log.internal("command", now, home.encode(), encode(order))


def spent(usd: int, first: int = 0, at: float = START) -> Log:
    """A log in which team `a` has spent so many dollars, one a second."""
    log = Log()
    for i in range(usd):
        log.add(event(first + i, at + i, cost=USD))
    return log


def more(log: Log, usd: int, at: float) -> None:
    first = len(log.records)
    for i in range(usd):
        log.add(event(1_000 + first + i, at + i, cost=USD))


def actions(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    found = [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]
    return [(each.node, each.verdict) for each in found if each.effect == "limits"]


def findings(outcomes: list[Outcome], detector: str = COMMAND) -> list[Finding]:
    found = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    return [each for each in found if each.detector == detector]


def dead(outcomes: list[Outcome]) -> list[str]:
    headers = [dict(r.headers) for o in outcomes for r in o.records if r.topic == "usage.dlq.v1"]
    return [f"{each['sb-stage'].decode()}: {each['sb-reason'].decode()}" for each in headers]


def test_a_top_up_lifts_the_block_and_the_raised_cap_blocks_again() -> None:
    log = spent(10)
    put(log, command(), START + 20)
    more(log, 4, START + 30)
    log.tick(START + 40)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow")]
    more(log, 1, START + 50)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]
    (told,) = findings(outcomes)
    assert told.reason == (
        "a has $5.00 more until 2026-01-06 00:00 UTC; grant by ada (operator), approved by fay (finance), "
        "eli (engineering): launch"
    )
    assert (told.incident, told.evidence["amount_nano"]) == ("r-1", 5 * USD)


def test_a_command_that_comes_again_is_applied_once() -> None:
    log = spent(10)
    for _ in range(3):
        put(log, command(), START + 20)
    more(log, 5, START + 30)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]
    assert len(findings(outcomes)) == 1


def test_a_grant_ends_at_its_time_by_the_clock_of_the_log() -> None:
    log = spent(10)
    put(log, command(expires_at=START + 3_600), START + 20)
    log.tick(START + 3_400)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow")]
    log.tick(START + 3_600 + 180)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]


def test_a_grant_is_withdrawn_and_cannot_be_given_again() -> None:
    log = spent(10)
    put(log, command(), START + 20)
    put(log, command("withdraw", "r-1/withdraw", approvals=()), START + 30)
    put(log, command(name="r-1/again"), START + 40)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]
    assert [each.state for each in findings(outcomes)] == ["open", "resolve"]


def test_a_grant_ends_with_the_month() -> None:
    log = spent(1)
    put(log, command(expires_at=START + 300 * DAY), START + 20)
    at = START + 40 * DAY
    more(log, 10, at)
    state, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block")]
    assert list(state.heads[0].tiers["a"].allowance) == []


def test_a_top_up_may_come_before_the_first_call() -> None:
    log = Log()
    put(log, command(), START)
    more(log, 14, START + 10)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == []


def test_an_exception_lifts_what_a_policy_does_to_a_node_until_it_ends() -> None:
    log = spent(10)
    put(log, command("exempt", "r-2/exempt", amount=0, policy="cap", expires_at=START + 3_600), START + 20)
    more(log, 5, START + 30)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow")]
    log.tick(START + 3_600)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]


def test_an_exception_is_ended_before_its_time() -> None:
    log = spent(10)
    put(log, command("exempt", "r-2/exempt", amount=0, policy="cap"), START + 20)
    put(log, command("withdraw", "r-2/withdraw", amount=0, policy="cap"), START + 30)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]


def test_what_cannot_be_done_is_a_dead_letter_with_its_reason() -> None:
    log = spent(1)
    put(log, command(node="b"), START + 5)
    put(log, command("exempt", "x", amount=0, policy="none"), START + 6)
    put(log, command("approve", "y"), START + 7)
    log.internal("command", START + 8, b"a", b"\0\0\0\0\x0a")
    log.raw(encode(command()), START + 9, key=b"a", headers=seal("command", "usage.v1", b"a", b"", SECRET))
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert sorted(dead(outcomes)) == [
        "command: unknown_kind", "command: unknown_node", "command: unknown_policy", "decode: forged",
        "decode: truncated_avro",
    ]  # fmt: skip
    assert actions(outcomes) == []


def test_a_command_in_the_wrong_partition_is_refused() -> None:
    log = spent(1)
    for home in ("a", "b", "c", "d"):
        put(log, command(node=home, name=home), START + 5, home)
    _, outcomes = play(log.cuts(), engine_of(CAP, partitions=4))
    assert 0 < dead(outcomes).count("command: misplaced") < 4


def test_people_are_told_of_commands_only_by_policies_that_name_them() -> None:
    named = {"name": "desk", "when": {"detectors": [COMMAND]}, "rungs": [{"name": "tell", "notify": ["ops"]}]}
    anything = {"name": "all", "when": {"detectors": ["*"]}, "rungs": [{"name": "b", "limit": {"verdict": "block"}}]}
    hook = {"ops": {"type": "webhook", "url": "https://example.com/x"}}
    for rules, effects in (([named], {"webhook"}), ([anything], set())):
        log = spent(1)
        put(log, command(), START + 20)
        _, outcomes = play(log.cuts(), engine_of(CAP | {"policies": rules, "destinations": hook}))
        sent = [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]
        assert {each.effect for each in sent if each.effect != "chain"} == effects


def test_of_two_exceptions_the_longer_holds_and_each_is_ended_by_itself() -> None:
    log = spent(10)
    long, short = (dict(request=name, amount=0, policy="cap") for name in ("r-2", "r-3"))
    put(log, command("exempt", "r-2/exempt", expires_at=START + 3 * DAY, **long), START + 20)
    put(log, command("exempt", "r-3/exempt", expires_at=START + 3_600, **short), START + 30)
    log.tick(START + 2 * DAY)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow")], "the shorter one cuts the longer one not short"
    put(log, command("withdraw", "r-3/withdraw", **short), START + 2 * DAY + 10)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow")]
    assert "is free of policy cap by another request until 2026-01-08 00:00 UTC" in findings(outcomes)[-1].reason
    put(log, command("withdraw", "r-2/withdraw", **long), START + 2 * DAY + 20)
    _, outcomes = play(log.cuts(), engine_of(CAP))
    assert actions(outcomes) == [("a", "block"), ("a", "allow"), ("a", "block")]
    assert "is free of policy cap no more" in findings(outcomes)[-1].reason


def test_an_exception_from_a_policy_that_is_gone_can_be_ended() -> None:
    log = spent(10)
    exempt = dict(request="r-2", amount=0, policy="cap")
    put(log, command("exempt", "r-2/exempt", expires_at=START + 3 * DAY, **exempt), START + 20)
    put(log, command("withdraw", "r-2/withdraw", **exempt), START + 200)
    log.tick(START + 500)
    without = policy(defaults=CAP["defaults"], policies=[])
    of = engine_of(versions=versions((0.0, CAP), (START + 100, without), (START + 400, CAP)))
    _, outcomes = play(log.cuts(), of)
    assert dead(outcomes) == []
    assert "is free of policy cap no more" in findings(outcomes)[-1].reason


def test_an_exception_in_a_row_of_an_earlier_version_holds_and_can_be_ended() -> None:
    kept = {"policy": "cap", "target": "a", "due": None, "exempt_until": START + DAY, "tracks": {}, "slots": {}}
    state = LadderState.from_state({"digest": "", "groups": [kept]})
    assert state.exempt_until("cap", "a") == START + DAY
    ends = command("withdraw", "r-2/withdraw", request="r-2", amount=0, policy="cap")
    engine_of(CAP).book.newest().ladder.exempt(state, ends, 0.0, START, Stamp(epoch=1, offset=1), "ended")
    assert LadderState.from_state(state.to_state()).exempt_until("cap", "a") == 0.0


def test_a_grant_to_a_project_that_nobody_has_named_yet_waits_for_its_calls() -> None:
    file = policy(defaults={"team": {"monthly_budget_usd": 100}, "project": {"monthly_budget_usd": 2}})
    log = Log()
    put(log, command(node="a/shop"), START)
    for i in range(8):
        log.add(event(i, START + 1 + i, cost=USD, project="shop"))
    _, outcomes = play(log.cuts(), engine_of(file))
    assert (dead(outcomes), actions(outcomes)) == ([], [("a/shop", "block")])
    assert findings(outcomes)[0].reason.startswith("a/shop has $5.00 more")


def test_a_grant_that_is_refused_by_the_log_of_its_team_is_told() -> None:
    log = spent(10)
    put(log, command(node="nobody"), START + 20)
    _, outcomes = play(log.cuts(), engine_of(policy(defaults={"team": {"monthly_budget_usd": 10}})))
    assert dead(outcomes) == ["command: unknown_node"]
    (told,) = findings(outcomes)
    assert (told.incident, told.state) == ("r-1", "update")
    assert told.reason.startswith("nobody is refused this: no node of team 'a'; grant by ada")


def test_a_team_remembers_no_more_ids_of_commands_than_its_row_has_room_for() -> None:
    log = spent(1)
    for i in range(1_200):
        put(log, command("exempt", f"r-{i}/exempt", request="r-0", amount=0, policy="cap"), START + 20)
    state, _ = play(log.cuts(), engine_of(CAP))
    assert (len(state.heads[0].commands), "r-1199/exempt" in state.heads[0].commands) == (1_000, True)


def test_what_is_granted_and_arrives_after_its_time_raises_nothing_and_is_told() -> None:
    for kind in ("grant", "exempt"):
        log = spent(10)
        put(log, command(kind, policy="cap" if kind == "exempt" else "", expires_at=START + 15), START + 20)
        log.tick(START + 500)
        _, outcomes = play(log.cuts(), engine_of(CAP))
        assert (actions(outcomes), dead(outcomes)) == ([("a", "block")], ["command: request_closed"])
        assert "is refused this: its time was over before it arrived" in findings(outcomes)[0].reason
