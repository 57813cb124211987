"""The table of cases in tests/data/gateway_contract.json, against check.lua as it is shipped.

A reader in another language loads `redis` (hash fields that are objects as JSON text), asks, and compares.
"""

import json
from pathlib import Path

import pytest

from spendbrake.actions.gateway.contract import VERSION
from spendbrake.actions.gateway.guard import CHECK, Guard

TABLE = json.loads((Path(__file__).parents[1] / "data" / "gateway_contract.json").read_text())
ids = [case["name"] for case in TABLE["cases"]]


def load(valkey, contents) -> None:
    for name, fields in contents.items():
        for field, value in fields.items():
            valkey.hset(name, field, value if isinstance(value, str) else json.dumps(value))


def test_the_table_is_of_this_version() -> None:
    assert TABLE["contract"] == VERSION
    assert len(ids) == len(set(ids)) >= 25


@pytest.mark.parametrize("case", TABLE["cases"], ids=ids)
def test_the_script_answers_as_the_table_says(valkey, case) -> None:
    load(valkey, case["redis"])
    for step in case["steps"]:
        ask = step["ask"]
        names = ("model", "environment", "project", "now", "stale_after_s")
        reply = json.loads(valkey.eval(CHECK.text, 1, "{sb}:k:" + ask["key"], *(ask[name] for name in names)))
        expected = dict(step["answer"])
        assert reply.pop("retry_after", None) == pytest.approx(expected.pop("retry_after", None))
        assert reply == expected


@pytest.mark.parametrize("case", TABLE["cases"], ids=ids)
def test_guard_tells_what_the_table_says(valkey, case) -> None:
    load(valkey, case["redis"])
    now = [0.0]
    guard = Guard(valkey, clock=lambda: now[0])
    for step in case["steps"]:
        ask, answer = step["ask"], step["answer"]
        now[0] = ask["now"]
        result = guard.check(ask["key"], ask["model"], ask["environment"] or None, ask["project"] or None)
        if answer["known"] == "none":
            assert (result.verdict, result.source) == ("allow", "unavailable")
            continue
        for name in answer.keys() - {"on_unavailable", "retry_after"}:
            assert getattr(result, name) == answer[name], name
        assert result.retry_after == pytest.approx(answer.get("retry_after"))
        assert result.allowed == (answer["verdict"] in ("allow", "downgrade"))
