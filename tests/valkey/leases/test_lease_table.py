"""The table of cases in tests/data/gateway_leases.json against lease.lua, and that it leaves nothing of the script out.

A reader in another language that takes leases loads `redis` (of a case, and of a step before its question), asks, and
compares; `reason` is for people and not compared.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spendbrake.actions.gateway.contract import VERSION
from spendbrake.actions.gateway.lease import LEASE

TABLE = json.loads((Path(__file__).parents[2] / "data" / "gateway_leases.json").read_text())
CASES = TABLE["cases"]
ORDER = {
    "reserve": ("amount", "ttl_s", "project", "stale_after_s"),
    "settle": ("cost", "project", "seen_after", "life_s"),
    "release": (),
    "recount": (),
}


def load(valkey: Any, contents: dict[str, dict[str, Any]]) -> None:
    for name, fields in contents.items():
        for field, value in fields.items():
            valkey.hset(name, field, value if isinstance(value, str) else json.dumps(value))


def play(valkey: Any, case: dict[str, Any], script: bytes = LEASE.text) -> list[tuple[Any, Any]]:
    """Return (told, expected) of each step."""
    valkey.flushall()
    load(valkey, case["redis"])
    found = []
    for step in case["steps"]:
        load(valkey, step.get("redis", {}))
        ask = step["ask"]
        name = f"{{sb}}:l:{ask['node']}" if ask["operation"] == "recount" else f"{{sb}}:k:{ask['key']}"
        more = [ask[field] for field in ORDER[ask["operation"]]]
        reply = json.loads(valkey.eval(script, 1, name, ask["operation"], ask.get("lease", ""), ask["now"], *more))
        reply.pop("reason", None)
        if "retry_after" in reply:
            reply["retry_after"] = round(reply["retry_after"], 6)
        found.append((reply, step["answer"]))
    return found


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_script_answers_as_the_table_says(valkey, case) -> None:
    for told, expected in play(valkey, case):
        assert told == expected


def test_the_table_is_of_this_version_and_asks_every_operation() -> None:
    assert TABLE["contract"] == VERSION
    assert {step["ask"]["operation"] for case in CASES for step in case["steps"]} == set(ORDER)
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_every_code_and_every_counter_of_the_script_comes_up_in_the_table(valkey) -> None:
    text = LEASE.text.decode()
    codes = set(re.findall(r"(?:code|code, no\.\w+)\"?\s*[=:]\s*['\"](\w+)['\"]", text))
    counters = set(re.findall(r"count\('(\w+)'", text)) | {"unseen", "expired"}
    seen: set[str] = set()
    for case in CASES:
        play(valkey, case)
        seen |= {name.decode() for name in valkey.hkeys("{sb}:z")}
    answered = {step["answer"].get("code") for case in CASES for step in case["steps"]} - {None}
    assert (codes, counters) == (answered, seen)
    assert len(codes) >= 3
    assert len(counters) >= 9


MUTANTS = [
    ("amount > free", "amount >= free"),
    ("left < free", "left > free"),
    ("now - all_told <= stale_after", "now - all_told < stale_after"),
    ("at >= since + UNCOUNTED_S", "true"),
    ("at >= since + UNCOUNTED_S", "at > since + UNCOUNTED_S"),
    ("since + UNCOUNTED_S", "since"),
    ("if before and before.team ~= chain.team then before, told = nil, nil end", ""),
    ("kept[1] = ARGV[3]", "kept[1] = '0'"),
    ("if not kept[1] or (run", "if true or (run"),
    ("run and kept[2] and kept[2] ~= run", "false"),
    ("kept.state ~= 'open' or kept['until'] <= now", "kept.state ~= 'open'"),
    ("if told or not all_told then", "if told then"),
    ("if told or not all_told then", "if true then"),
    ("if told_of(link[1]) or not all_told_at(link) then", "if told_of(link[1]) then"),
    ("if not chains_told(home .. p) then return nil end", ""),
    ("(mark and number(mark.at) or 0) >= since", "(mark and number(mark.at) or 0) > since"),
    ("(told or not chains_told(chain.nodes[1][2]))", "told"),
    ("(told or not chains_told(chain.nodes[1][2]))", "not chains_told(chain.nodes[1][2])"),
    ("now < told.ends_at and told.left", "now <= told.ends_at and told.left"),
    ("if amount > all then", "if true then"),
    ("and not CAUTION[link[3]] then", "and false then"),
    ("if amount ~= 0 then call('HINCRBY', leases, SUM, whole(-amount)) end", ""),
    ("call('HDEL', leases, id)", "-- kept"),
    ("sweep(node, told.at)", "sweep(node)"),
    ("if told_at then", "if told_at == 0 then"),
    ("if seen_after then call('ZADD', settled", "if false then call('ZADD', settled"),
    ("kept.state == 'settled' then", "kept.state == 'never' then"),
    ("if told_of(link[1]) or not all_told_at(link) then", "if true then"),
    ("if not kept or kept.state ~= 'open' then return", "if not kept then return"),
    ("if sum ~= was then", "if false then"),
    ("open = open + tonumber(found[i + 1]) end", "open = open end"),
    ("if raw and not chain then return nil end", ""),
    ("for _, part in ipairs({before and before.nodes or {}, chain.nodes})", "for _, part in ipairs({chain.nodes})"),
    ("add(node, cost, settled_until, seen_after)", "add(node, reserved, settled_until, seen_after)"),
]


@pytest.mark.parametrize(("rule", "broken"), MUTANTS, ids=[rule[:40] for rule, _ in MUTANTS])
def test_a_reader_that_breaks_a_rule_fails_the_table(valkey, rule: str, broken: str) -> None:
    text = LEASE.text.decode()
    assert text.count(rule) == 1, "the rule is in the script once"
    script = text.replace(rule, broken).encode()

    def wrong(case: dict[str, Any]) -> bool:
        try:
            return any(told != expected for told, expected in play(valkey, case, script))
        except Exception:
            return True

    assert any(wrong(case) for case in CASES)
