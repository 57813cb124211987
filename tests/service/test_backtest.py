"""Backtests on a real Valkey: what a policy would have refused, saved and told, and an exit code for CI."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from servers.valkey import Valkey
from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.decision import place_in_rollout
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.cli.main import app
from spendbrake.streams.offline.backtest import Backtest, Bill
from spendbrake.streams.offline.gateway import RedisGateway

START, USD = 1_767_571_200, 10**9
BLOCK = {
    "name": "cap",
    "when": {"tiers": ["hard-cap"]},
    "rungs": [{"name": "block", "limit": {"verdict": "block"}, "notify": ["hook"]}],
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


def policy(usd: float, **rung: Any) -> dict[str, Any]:
    document = {
        "nodes": [{"id": "acme", "level": "organization"}],
        "defaults": {"team": {"monthly_budget_usd": usd}},
        "destinations": {"hook": {"type": "webhook", "url": "https://example.com/x"}},
        "policies": [BLOCK | rung],
        "detection": {"enabled": False},
    }
    PolicyFile.model_validate(document)
    return document


def events(n: int, environment: str = "prod", model: str = "gpt-4o") -> list[bytes]:
    """A call of a dollar every ten seconds."""
    return [
        orjson.dumps(
            {"request_id": f"r{i}", "time": START + 10 * i, "api_key_id": "k", "team": "loop", "provider": "openai",
             "model": model, "environment": environment, "cost_usd": "1"}
        )
        for i in range(n)
    ]  # fmt: skip


async def bill(url: str, name: str, document: dict[str, Any], lines: list[bytes]) -> Bill:
    version = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=document)
    gateway = RedisGateway(url, f"test-backtest-{name}")
    try:
        return await Backtest(version, gateway=gateway).run(lines)
    finally:
        await gateway.aclose()


async def test_a_cap_refuses_what_comes_after_it_and_tells_once(valkey) -> None:
    found = await bill(valkey.url, "cap", policy(10), events(30))
    assert (found.spent, found.calls, found.refused, found.refused_prod) == (10 * USD, 30, 20, 20)
    assert found.told == {"webhook": 1}


async def test_what_corrects_a_call_that_was_refused_costs_nothing_either(valkey) -> None:
    lines = events(30)
    original = orjson.loads(lines[-1])
    changed = {"kind": "correction", "cost_usd": "7", "time": START + 300}
    first = original | changed | {"request_id": "c1", "replaces": original}
    second = original | changed | {"request_id": "c2", "replaces": first}
    found = await bill(valkey.url, "corrected", policy(10), [*lines, orjson.dumps(first), orjson.dumps(second)])
    assert (found.spent, found.calls, found.refused) == (10 * USD, 30, 20)


async def test_a_policy_in_shadow_refuses_nothing_and_pages_nobody(valkey) -> None:
    found = await bill(valkey.url, "shadow", policy(10, mode="shadow"), events(30))
    assert (found.spent, found.refused, found.pages) == (30 * USD, 0, 0)


async def test_what_is_not_production_is_counted_apart(valkey) -> None:
    found = await bill(valkey.url, "dev", policy(10), events(30, "dev"))
    assert (found.refused, found.refused_prod) == (20, 0)


async def test_a_downgraded_call_costs_what_the_other_model_costs(valkey) -> None:
    downgrade = {"rungs": [{"name": "down", "limit": {"verdict": "downgrade", "model": "gpt-4o-mini"}}]}
    lines = [line.replace(b'"cost_usd":"1"', b'"input_tokens":400000') for line in events(30)]
    found = await bill(valkey.url, "down", policy(10, **downgrade), lines)
    assert found.downgraded == 20
    assert found.spent == 10 * USD + 20 * 60_000_000


async def test_a_throttle_lets_its_rate_pass(valkey) -> None:
    slow = {"rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 0.05, "burst": 1}}]}
    found = await bill(valkey.url, "slow", policy(10, **slow), events(50))
    assert found.refused == pytest.approx(20, abs=2)


async def test_decisions_are_as_late_as_asked_however_many_calls_come_meanwhile(valkey: Valkey) -> None:
    def dense(n: int) -> list[bytes]:
        """A hundred calls of a cent a second."""
        base = orjson.loads(events(1)[0]) | {"cost_usd": "0.01"}
        return [orjson.dumps(base | {"request_id": f"d{i}", "time": START + i / 100}) for i in range(n)]

    version = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=policy(1))
    for lag_s, spent in ((1.0, 2 * USD), (30.0, 31 * USD)):
        gateway = RedisGateway(valkey.url, f"test-backtest-lag-{lag_s}")
        found = await Backtest(version, gateway=gateway, lag_s=lag_s).run(dense(5_000))
        await gateway.aclose()
        assert (found.spent, found.refused) == (pytest.approx(spent, abs=USD // 50), 5_000 - found.spent // 10_000_000)


async def test_a_call_that_is_moved_to_another_provider_costs_what_that_one_asks(valkey: Valkey) -> None:
    downgrade = {"rungs": [{"name": "down", "limit": {"verdict": "downgrade", "model": "claude-haiku-4-5"}}]}
    lines = [line.replace(b'"cost_usd":"1"', b'"input_tokens":400000') for line in events(30)]
    found = await bill(valkey.url, "elsewhere", policy(10, **downgrade), lines)
    assert (found.downgraded, found.spent) == (20, 10 * USD + 20 * 400_000_000)


def test_what_other_prices_bring_is_not_saved(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cheap = {"provider": "openai", "model": "gpt-4o", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
    (tmp_path / "today.yaml").write_text(yaml.safe_dump(policy(1_000)))
    (tmp_path / "candidate.yaml").write_text(yaml.safe_dump(policy(10) | {"prices": {"overrides": [cheap]}}))
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\n".join(line.replace(b'"cost_usd":"1"', b'"input_tokens":1000000') for line in events(30)))
    said = [
        "policy",
        "backtest",
        str(tmp_path / "candidate.yaml"),
        str(trace),
        "--against",
        str(tmp_path / "today.yaml"),
    ]
    done = CliRunner().invoke(app, [*said, "--least-saved-usd", "21"])
    rows = {cells[0]: cells[1:3] for line in done.output.splitlines() if len(cells := _cells(line)) == 10}
    assert (rows["no brake"], rows["candidate"]) == (["$75.00", "$0.00"], ["$10.00", "$20.00"])
    assert done.exit_code == 3


def test_the_command_shows_both_bills_and_fails_where_ci_should(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    files = {"today.yaml": policy(20), "candidate.yaml": policy(10)}
    for name, document in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(document))
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\n".join(events(30)))
    said = [
        "policy",
        "backtest",
        str(tmp_path / "candidate.yaml"),
        str(trace),
        "--against",
        str(tmp_path / "today.yaml"),
    ]
    done = CliRunner().invoke(app, said)
    assert done.exit_code == 0, done.output
    rows = {cells[0]: cells[1:] for line in done.output.splitlines() if len(cells := _cells(line)) == 10}
    assert rows["no brake"][:2] == ["$30.00", "$0.00"]
    assert rows["today"][:5] == ["$20.00", "$10.00", "30", "10", "10"]
    assert rows["candidate"][:5] == ["$10.00", "$20.00", "30", "20", "20"]
    for gate in (["--most-prod-refused", "15"], ["--most-pages", "0"], ["--least-saved-usd", "20.01"]):
        failed = CliRunner().invoke(app, [*said, *gate])
        assert failed.exit_code == 3, failed.output


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ ").split("│")]


async def test_a_rollout_refuses_the_keys_of_its_share_and_counts_what_it_would_have_refused(valkey: Valkey) -> None:
    keys = [f"key-{number}" for number in range(10)]
    lines = [line.replace(b'"k"', f'"{keys[i % 10]}"'.encode()) for i, line in enumerate(events(100))]
    inside = sum(place_in_rollout("cap", key) < 40 for key in keys)
    assert 0 < inside < 10
    narrow = await bill(valkey.url, "canary", policy(20, canary_percent=40), lines)
    assert narrow.refused + narrow.beyond == 80
    assert narrow.refused == 8 * inside
    everyone = await bill(valkey.url, "canary-all", policy(20, canary_percent=100), lines)
    assert (everyone.refused, everyone.beyond) == (80, 0)


@pytest.mark.parametrize("good", [0, 3])
def test_lines_that_are_no_usage_events_are_told_and_a_file_of_nothing_else_passes_no_gate(
    tmp_path: Path, good: int
) -> None:
    (tmp_path / "candidate.yaml").write_text(yaml.safe_dump(policy(10)))
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\n".join([*events(good), b"key,team", b'{"request_id": "x"}']))
    done = CliRunner().invoke(app, ["policy", "backtest", str(tmp_path / "candidate.yaml"), str(trace)])
    assert done.exit_code == (0 if good else 1), done.output
    assert "2 lines could not be counted; the first: " in done.output
    assert ("no usage event in it" in done.output) == (not good)
