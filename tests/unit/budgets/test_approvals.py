"""Two people of two roles, neither of them the requester; the reserve pays once, and never more than it has."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.schemas.command import Approval, Command
from spendbrake.schemas.money import to_nano
from spendbrake.schemas.parts.approvers import Approvers
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.budgets.allocation.approvals import KEPT_S, LONGEST_S, OPEN_S, SLACK_S, Desk

NOV, RESERVE, NOW = "2026-11", to_nano(1_000), 1_795_000_000.0
ASKED = Command(
    id="r-1", kind="request", node="payments", by="ada", role="operator", issued_at=NOW, amount=to_nano(400),
    expires_at=NOW + 86_400, reason="launch",
)  # fmt: skip


def decision(kind: str, by: str, role: str, **more: Any) -> Command:
    return Command(
        id=f"{kind}-{by}", kind=kind, node="payments", by=by, role=role, issued_at=NOW, request="r-1", **more
    )


FINANCE, ENGINEERING = decision("approve", "fay", "finance"), decision("approve", "eli", "engineering")


def desk(*commands: Command, now: float = NOW, reserve: int = RESERVE) -> Desk:
    one = Desk()
    for command in commands:
        one.take(command, now, NOV, reserve)
    return one


def refused(one: Desk, command: Command, now: float = NOW, reserve: int = RESERVE) -> str:
    before = one.to_state()
    with pytest.raises(BadRecord) as bad:
        one.take(command, now, NOV, reserve)
    assert one.to_state() == before
    return bad.value.reason


@pytest.mark.parametrize("order", [(FINANCE, ENGINEERING), (ENGINEERING, FINANCE)])
def test_two_roles_make_a_grant_and_the_reserve_pays(order: tuple[Command, Command]) -> None:
    one = desk(ASKED, order[0])
    assert one.paid == {}
    (found,) = one.take(order[1], NOW, NOV, RESERVE)
    assert (found.kind, found.id, found.request, found.amount) == ("grant", "r-1/grant", "r-1", to_nano(400))
    assert set(found.approvals) == {Approval(by="fay", role="finance"), Approval(by="eli", role="engineering")}
    assert one.paid == {NOV: to_nano(400)}


@pytest.mark.parametrize("policy", ["", "cap"])
def test_nothing_is_paid_for_a_grant_that_would_have_ended_already(policy: str) -> None:
    asked = replace(ASKED, amount=0 if policy else ASKED.amount, policy=policy)
    one = desk(asked, FINANCE)
    assert refused(one, ENGINEERING, now=ASKED.expires_at) == "request_closed"
    assert one.paid == {}
    assert one.take(ENGINEERING, ASKED.expires_at - 1, NOV, RESERVE) != [], "just in time"


def test_what_comes_again_changes_nothing() -> None:
    one = desk(ASKED, FINANCE, ENGINEERING)
    assert [one.take(each, NOW, NOV, RESERVE) for each in (ASKED, FINANCE, ENGINEERING)] == [[], [], []]
    assert one.paid == {NOV: to_nano(400)}


def test_nobody_approves_their_own_request_nor_twice_nor_without_the_role() -> None:
    assert refused(desk(ASKED), decision("approve", "ada", "finance")) == "own_request"
    assert refused(desk(ASKED, FINANCE), decision("approve", "fay", "engineering")) == "second_role_missing"
    assert refused(desk(ASKED, FINANCE), decision("approve", "fin", "finance")) == "second_role_missing"
    assert refused(desk(ASKED), decision("approve", "olaf", "operator")) == "not_allowed"
    assert refused(desk(), FINANCE) == "unknown_request"


def test_the_reserve_is_asked_at_the_request_and_again_at_the_grant() -> None:
    assert refused(desk(), replace(ASKED, amount=RESERVE + 1)) == "reserve_exceeded"
    one = desk(ASKED, replace(ASKED, id="r-2", amount=to_nano(700)), FINANCE, ENGINEERING)
    two = [replace(each, request="r-2") for each in (FINANCE, ENGINEERING)]
    one.take(two[0], NOW, NOV, RESERVE)
    assert refused(one, two[1]) == "reserve_exceeded"
    assert one.take(two[1], NOW, "2026-12", RESERVE)[0].amount == to_nano(700)


def test_a_denied_or_old_request_is_closed() -> None:
    assert refused(desk(ASKED, decision("deny", "fay", "finance")), ENGINEERING) == "request_closed"
    assert refused(desk(ASKED, decision("deny", "ada", "operator")), ENGINEERING) == "request_closed"
    assert refused(desk(ASKED), FINANCE, now=NOW + OPEN_S) == "request_closed"
    assert refused(desk(ASKED, FINANCE, ENGINEERING), decision("deny", "ada", "operator")) == "request_closed"
    assert refused(desk(ASKED), decision("deny", "bo", "operator")) == "not_allowed"


def test_a_grant_is_withdrawn_once_and_the_money_stays_paid() -> None:
    one = desk(ASKED, FINANCE, ENGINEERING)
    assert refused(one, decision("withdraw", "bo", "operator")) == "not_allowed"
    (found,) = one.take(decision("withdraw", "fay", "finance"), NOW, NOV, RESERVE)
    assert (found.kind, found.request, found.by) == ("withdraw", "r-1", "fay")
    assert one.take(decision("withdraw", "ada", "operator"), NOW, NOV, RESERVE) == []
    assert one.paid == {NOV: to_nano(400)}


@pytest.mark.parametrize(
    "asked",
    [
        replace(ASKED, amount=0),
        replace(ASKED, policy="hard-cap"),
        replace(ASKED, amount=-1, policy="hard-cap"),
        replace(ASKED, expires_at=NOW),
        replace(ASKED, amount=0, policy="cap", expires_at=NOW + LONGEST_S + 2 * SLACK_S),
    ],
    ids=["nothing", "both", "money for the reserve", "past", "for so long that nobody could end it"],
)
def test_a_request_says_what_for_and_until_when(asked: Command) -> None:
    assert refused(desk(), asked) == "bad_command"


def test_an_exception_from_a_policy_costs_nothing_and_is_approved_alike() -> None:
    one = desk(replace(ASKED, amount=0, policy="runaway"), FINANCE, reserve=0)
    (found,) = one.take(ENGINEERING, NOW, NOV, 0)
    assert (found.kind, found.policy, one.paid.get(NOV)) == ("exempt", "runaway", 0)


@pytest.mark.parametrize("field", ["reason", "by", "home", "node"])
def test_what_is_too_long_to_be_kept_is_refused(field: str) -> None:
    assert refused(desk(), replace(ASKED, **{field: "x" * 301})) == "bad_command"
    assert refused(desk(ASKED), replace(FINANCE, by="x" * 301)) == "bad_command"


def test_an_exception_is_granted_though_the_reserve_was_lowered_below_what_it_has_paid() -> None:
    one = desk(ASKED, FINANCE, ENGINEERING)
    two = replace(ASKED, id="r-2", amount=0, policy="cap")
    given = [replace(each, request="r-2") for each in (FINANCE, ENGINEERING)]
    assert [len(one.take(each, NOW, NOV, to_nano(100))) for each in (two, *given)] == [0, 0, 1]
    assert refused(one, replace(ASKED, id="r-3", amount=1), reserve=to_nano(100)) == "reserve_exceeded"


def test_a_restart_in_between_changes_nothing_and_old_requests_go() -> None:
    one = Desk.from_state(desk(ASKED, FINANCE).to_state())
    assert len(one.take(ENGINEERING, NOW, NOV, RESERVE)) == 1
    one.forget(NOW + KEPT_S)
    assert list(one) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 600), st.sampled_from(["fay", "eli"])), max_size=40))
def test_the_reserve_never_pays_more_than_it_holds(script: list[tuple[int, int, str]]) -> None:
    one, granted = Desk(), 0
    for number, usd, by in script:
        name = f"r-{number}"
        asked = replace(ASKED, id=name, amount=to_nano(usd))
        approve = replace(FINANCE if by == "fay" else ENGINEERING, request=name)
        for each in (asked, approve):
            try:
                granted += sum(grant.amount for grant in one.take(each, NOW, NOV, RESERVE))
            except BadRecord:
                continue
    assert granted == one.paid.get(NOV, 0) <= RESERVE


@pytest.mark.parametrize("by", ["Ada", " ada ", "token:ada", "slack:UADA", "TOKEN:Ada laptop"])
def test_one_person_of_several_names_is_one_person(by: str) -> None:
    people = Approvers(people={"ada": ("slack:UADA", "token:ada laptop"), "fay": ("Fay M",)}).named()

    def refusal(one: Desk, command: Command) -> str:
        with pytest.raises(BadRecord) as bad:
            one.take(command, NOW, NOV, RESERVE, people)
        return bad.value.reason

    assert refusal(desk(ASKED), decision("approve", by, "finance")) == "own_request"
    other = desk(replace(ASKED, by="zoe"), decision("approve", "ada", "finance"))
    assert refusal(other, decision("approve", by, "engineering")) == "second_role_missing"
    assert refusal(desk(ASKED, FINANCE), decision("approve", "fay m", "engineering")) == "second_role_missing"
    assert other.take(ENGINEERING, NOW, NOV, RESERVE, people) != []
    mine = desk(ASKED)
    mine.take(decision("deny", by, "operator"), NOW, NOV, RESERVE, people)
    assert [each.status for each in mine] == ["denied"]


def test_a_name_belongs_to_one_person() -> None:
    with pytest.raises(ValueError, match="'ada' is 'fay' as well as 'ada'"):
        Approvers(people={"fay": ("token:ada",), "ada": ("Ada",)})
