"""The table of cases in tests/data/gateway_contract.json, against check.lua as it is shipped.

A reader in another language loads `redis` (hash fields that are objects as JSON text), asks, and compares.
"""

import json
from pathlib import Path

import pytest

from spendbrake.actions.gateway.contract import VERSION
from spendbrake.actions.gateway.guard import CHECK, Guard
from spendbrake.schemas.decision import STATUS, VERDICTS

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


def play(valkey, case, script: bytes) -> list[tuple[dict, dict]]:
    """Return (told, expected) of each step, waits rounded."""
    valkey.flushall()
    load(valkey, case["redis"])
    found = []
    for step in case["steps"]:
        ask = step["ask"]
        names = ("model", "environment", "project", "now", "stale_after_s")
        told = json.loads(valkey.eval(script, 1, "{sb}:k:" + ask["key"], *(ask[name] for name in names)))
        found.append(
            tuple({**each, "retry_after": round(each.get("retry_after", 0), 6)} for each in (told, step["answer"]))
        )
    return found


def test_every_word_of_the_contract_comes_up_in_the_table() -> None:
    steps = [step for case in TABLE["cases"] for step in case["steps"]]
    answers = [step["answer"] for step in steps]
    for name, words in {
        "verdict": {*VERDICTS},
        "known": {"key", "untagged", "none"},
        "marks": {"fresh", "stale", "missing"},
        "on_unavailable": {"open", "closed", "last_decision"},
        "status": {*STATUS.values(), 503},
        "code": {"unavailable", "unreadable_decision", "unknown_verdict", "rate_limited", "budget_exceeded"},
    }.items():
        assert words <= {answer.get(name) for answer in answers}, name
    optional = ("retry_after", "reset_at", "expires_at", "max_rps", "burst", "remaining", "model", "action_id", "node")
    optional += ("would", "would_action")
    for name in optional:
        assert any(name in answer for answer in answers), name


MUTANTS = [
    ("decision.expires_at > now", "decision.expires_at >= now"),
    ("decision.verdict ~= 'allow' and ", ""),
    ("text(chain.environment) or text(ARGV[2])", "text(ARGV[2]) or text(chain.environment)"),
    ("if RANK[a.verdict] ~= RANK[b.verdict] then return RANK[a.verdict] > RANK[b.verdict] end", ""),
    ("if ends_at(a) ~= ends_at(b) then return ends_at(a) > ends_at(b) end", ""),
    (
        "if a.order ~= b.order then return a.order < b.order end",
        "if a.order ~= b.order then return a.order > b.order end",
    ),
    ("not RANK[verdict])", "false)"),
    ("if not decision or not number(decision.expires_at) then", "if decision and not number(decision.expires_at) then"),
    ("if throttle.tokens < ALMOST then", "if throttle.tokens < 0 then"),
    ("if refuses then return refuses, wait end", ""),
    ("at - since) * throttle.max_rps", "at - since) * 0"),
    ("if its > wait then refuses", "if its < wait or wait == 0 then refuses"),
    ("now - at > stale_after", "now - at > stale_after * 2"),
    ("marks ~= 'fresh' and not CAUTION[mode]", "marks ~= 'fresh' and false"),
    ("if string.sub(own[i], 1, #node + 1) == node .. '|' then", "if true then"),
    ("chain.v == 1 and ", ""),
    ("while worst and worst.verdict == 'downgrade' and not seen[worst.model] do", "while false do"),
    ("for p = 0, (number(chain.partitions) or 0) - 1 do", "for p = 0, -1 do"),
    (
        "for _, part in ipairs({project and project.nodes or {}, chain.nodes}) do",
        "for _, part in ipairs({chain.nodes}) do",
    ),
    ("if not star then return pattern == name end", "if true then return pattern == name end"),
    ("and listed(decision.environment, environment)", ""),
    ("place_in(decision.policy) >= decision.percent", "place_in(decision.policy) < decision.percent"),
    ("place_in(decision.policy) >= decision.percent", "place_in('cap') >= decision.percent"),
    (".. '|' .. key)", ".. '|')"),
    ("at < since or", "false or"),
    ("at < since or", "at <= since or"),
    ("or fields[i] == lost then", "then"),
    ("if not chains_told(home .. p) then return NONE end", ""),
    ("(mark and number(mark.at) or 0) >= since", "true"),
    ("(mark and number(mark.at) or 0) >= since", "(mark and number(mark.at) or 0) > since"),
    ("if project == nil and not chains_told(chain.nodes[1][2])", "if project == nil"),
    ("if project == false then return NONE end", ""),
    ("if project and project.team ~= chain.team then project = nil end", ""),
    ("off_list(model), {}", "nil, {}"),
    ("if project then lists[#lists + 1] = project.models end", ""),
    ("not lists[1] and marks == 'fresh'", "marks == 'fresh'"),
    ("/ 2 ^ 32 * 100", "/ 2 ^ 32"),
    ("if about_model(decision, requested) and stricter(decision, would)", "if stricter(would or decision, decision)"),
]


@pytest.mark.parametrize(("rule", "broken"), MUTANTS, ids=[f"{rule[:40]} -> {broken[:20]}" for rule, broken in MUTANTS])
def test_a_reader_that_breaks_a_rule_fails_the_table(valkey, rule: str, broken: str) -> None:
    text = CHECK.text.decode()
    assert text.count(rule) == 1, "the rule is in the script once"
    script = text.replace(rule, broken).encode()

    def wrong(case) -> bool:
        try:
            return any(told != expected for told, expected in play(valkey, case, script))
        except Exception:
            return True

    assert any(wrong(case) for case in TABLE["cases"])


def test_the_script_as_shipped_passes_the_same_comparison(valkey) -> None:
    assert all(told == expected for case in TABLE["cases"] for told, expected in play(valkey, case, CHECK.text))


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
