"""What somebody asks for, as nano-USD: at least one of them, and no more than the reserve ever holds."""

from dataclasses import replace
from decimal import Decimal

import pytest

from enginelog import policy, version
from spendbrake.schemas.command import Command
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.workers.people.desk import BeyondReserve, NoLimit, amount_of, desk_of, top_up


def test_the_least_that_can_be_asked_for_is_a_nano_usd() -> None:
    assert top_up(Decimal("0.0000000006")) == top_up(Decimal("0.000000001")) == 1
    for nothing in ("0", "4e-10", "5e-10", "1e-999999", "-1"):
        with pytest.raises(ValueError, match="less than a billionth of a USD"):
            top_up(Decimal(nothing))


def test_units_that_come_to_less_than_a_nano_usd_are_refused() -> None:
    nodes = [{"id": "acme", "level": "organization", "currency": {"name": "credits", "rates": [{"usd": "0.01"}]}}]
    rules = RuleBook(1, [version(policy(nodes=nodes))]).at(0.0)
    asked = Command(id="r", kind="request", node="pay", home="pay", by="ada", role="operator", issued_at=0.0)
    assert amount_of(Decimal("0.0000001"), asked, rules) == 1
    with pytest.raises(ValueError, match="4e-10 USD is less"):
        amount_of(Decimal("0.00000004"), asked, rules)


def test_more_than_the_whole_reserve_is_refused_before_it_is_written_and_no_decision_is() -> None:
    nodes = [{"id": "acme", "level": "organization", "reserve_usd": 5}]
    kept = RuleBook(1, [version(policy(nodes=nodes))]).at(0.0)
    none = RuleBook(1, [version(policy(nodes=[nodes[0] | {"reserve_usd": None}]))]).at(0.0)
    asked = Command(
        id="r", kind="request", node="pay", home="pay", by="ada", role="operator", issued_at=0.0, amount=5 * 10**9
    )
    more = replace(asked, amount=asked.amount + 1)
    assert desk_of(kept, asked) == desk_of(none, replace(asked, amount=0, policy="")) == "acme"
    with pytest.raises(BeyondReserve, match=r"more than the reserve of 'acme': \$5\.00 a month"):
        desk_of(kept, more)
    with pytest.raises(BeyondReserve, match=r"\$0\.00 a month"):
        desk_of(none, asked)
    assert desk_of(kept, replace(more, kind="withdraw")) == "acme"


def test_money_is_refused_to_a_node_without_a_limit_and_an_exception_is_not() -> None:
    nodes = [
        {"id": "acme", "level": "organization", "reserve_usd": 5},
        {"id": "free", "level": "team", "parent": "acme"},
    ]
    rules = RuleBook(1, [version(policy(nodes=nodes))]).at(0.0)
    asked = Command(
        id="r", kind="request", node="free", home="free", by="ada", role="operator", issued_at=0.0, amount=10**9
    )
    with pytest.raises(NoLimit, match="'free' has no budget and no allocation"):
        desk_of(rules, asked)
    assert desk_of(rules, replace(asked, amount=0, policy="cap")) == "acme"
