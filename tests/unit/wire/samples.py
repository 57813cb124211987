"""One message of every class with every field set, and its golden bytes. Run as a module: writes what is missing."""

from pathlib import Path
from typing import Any

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Approval, Command, Delta
from spendbrake.schemas.control import (
    AccessToken,
    Acknowledgement,
    Owner,
    OwnersVersion,
    PolicyVersion,
    Silence,
    StoreSince,
    TopicRegistration,
)
from spendbrake.schemas.decision import Decision, Scope, Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.result import Result
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import BUNDLED, encode, schema_text
from spendbrake.schemas.wire.json import encode_usage_json

GOLDEN = Path(__file__).parents[2] / "data" / "golden"

ORIGINAL = UsageEvent(
    request_id="req-1",
    source="gateway-eu",
    time=1_763_000_000.25,
    api_key_id="key-search",
    provider="anthropic",
    model="claude-sonnet-4-5",
    session_id="s-1",
    input_tokens=172_000,
    cache_read_tokens=155_000,
    cache_write_tokens=3_000,
    output_tokens=12,
    cost=166_250_000,
    kind="estimate",
)
USAGE = UsageEvent(
    request_id="req-2",
    source="gateway-eu",
    time=1_763_000_001.5,
    api_key_id="key-search",
    provider="anthropic",
    model="claude-sonnet-4-5",
    requested_model="claude-opus-4-5",
    operation="generate_content",
    team="search",
    project="ranking",
    environment="prod",
    session_id="s-1",
    input_tokens=172_000,
    cache_read_tokens=155_000,
    cache_write_tokens=3_000,
    output_tokens=4_096,
    units=2.5,
    unit="images",
    cost=166_250_001,
    labels={"cost_center": "cc-7", "feature": "größe"},
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    latency_ms=1_234,
    error_code="429",
    kind="correction",
    replaces=ORIGINAL,
)
STAMP = Stamp(epoch=3, offset=9_876_543_210)
SCOPE = Scope(environment=("dev", "staging"), keys=(), models=("gpt-*",))
SAMPLES: dict[str, Any] = {
    "usage": USAGE,
    "finding": Finding(
        id="f-1",
        time=1_763_000_002.5,
        team="search",
        node="team/search",
        severity="critical",
        detector="budget",
        family="budget",
        reason="95 % of the monthly budget is spent",
        state="update",
        score=4.25,
        incident="i-1",
        tier="critical",
        period="2025-11",
        turn=2,
        current=False,
        evidence={"spent_nano": 950_000_000_000, "top": [{"key": "key-search", "share": 0.8}], "none": None},
    ),
    "action": Action(
        id="a-1",
        time=1_763_000_002.5,
        team="search",
        node="team/search",
        effect="limits",
        policy="budgets",
        rung="slow down",
        severity="warning",
        verdict="throttle",
        reason="95 % of the monthly budget is spent",
        finding="f-1",
        stamp=STAMP,
        partition=7,
        expires_at=1_764_547_200.0,
        scope=SCOPE,
        destination="ops",
        params={"max_rps": 0.5, "burst": 3},
        code="budget_exceeded",
        incident="i-1",
        tier="critical",
        period="2025-11",
        turn=2,
        reset_at=1_764_547_200.0,
        mode="shadow",
        evidence={"spent_nano": 950_000_000_000},
    ),
    "result": Result(
        action="a-1",
        effect="slack",
        destination="ops",
        outcome="unknown",
        at=1_763_000_003.75,
        attempts=3,
        writer="act-1",
        sequence=41,
        previous="ab" * 32,
        digest="cd" * 32,
        error="timed out",
        response={"status": 504},
    ),
    "rollup": Rollup(
        parent="department/r-and-d",
        calendar="UTC/1",
        now=1_763_000_004.0,
        children=(
            ChildTotals(
                child="team/search",
                stamp=STAMP,
                periods={"2025-11": 2**62},
                days={"2025-11-13": -5},
                hours={489_722: 17},
                minutes={29_383_333: 18},
                calls={"2025-11": 19},
                unplaced={"2025-11": 20},
                retired=True,
            ),
        ),
    ),
    "policy": PolicyVersion(
        version=12,
        valid_from=1_763_000_100.0,
        published_at=1_763_000_000.0,
        digest="ef" * 32,
        document={"version": 1, "nodes": [{"id": "acme", "level": "organization"}]},
    ),
    "owners": OwnersVersion(
        version=2,
        valid_from=1_763_001_000.0,
        published_at=1_763_000_000.0,
        owners=(
            Owner(key="key-search", team="search", project="ranking", environment="prod", node="n", cost_center="c"),
        ),
    ),
    "topic": TopicRegistration(name="usage.v1", topic_id="Zp8n0kQHSVWQeJ3Vv9vEJQ", epoch=3, partitions=32),
    "decision": Decision(
        node="team/search",
        scope=SCOPE,
        policy="budgets",
        verdict="downgrade",
        stamp=STAMP,
        partition=7,
        code="budget_exceeded",
        reason="95 % of the monthly budget is spent",
        action_id="a-1",
        expires_at=1_764_547_200.0,
        reset_at=1_764_547_200.0,
        max_rps=0.5,
        burst=3,
        model="gpt-5-mini",
        percent=12.5,
    ),
    "command": Command(
        id="r-1/grant",
        kind="grant",
        node="team/search",
        home="search",
        by="ada",
        role="operator",
        issued_at=1_763_000_005.5,
        request="r-1",
        amount=400_000_000_000,
        policy="runaway",
        expires_at=1_764_547_200.0,
        reason="launch of größe",
        approvals=(Approval(by="fay", role="finance"), Approval(by="eli", role="engineering")),
        finding="f-1",
        incident="i-1",
        detector="phase_knn",
        opinion="false_alarm",
    ),
    "delta": Delta(
        id="ab" * 16,
        version=12,
        team="search",
        key="key-search",
        provider="anthropic",
        model="claude-sonnet-4-5",
        minutes={29_383_333: -166_250_001, 29_383_334: 7},
        project="größe",
        environment="prod",
        by="cli:fay",
    ),
    "silence": Silence(
        id="7b1e",
        matchers=('team="search"', 'node=~"key-.*"'),
        starts_at=1_763_000_000.0,
        ends_at=1_763_007_200.0,
        created_at=1_763_000_000.5,
        created_by="cli:root",
        comment="größere Migration",
    ),
    "store": StoreSince(since=1_763_000_000.5),
    "acknowledgement": Acknowledgement(trouble="ab" * 16, action="cd" * 16, at=1_763_000_000.0, by="cli:fay"),
    "token": AccessToken(
        id="5f3a9c1d",
        name="gateway of the shop",
        roles=("check", "ingest"),
        salt="ab" * 16,
        digest="cd" * 32,
        created_at=1_763_000_000.0,
        created_by="cli:root",
        expires_at=1_764_547_200.0,
        revoked_at=1_763_000_100.0,
        revoked_by="token:01234567",
    ),
}


def golden(name: str) -> bytes:
    """Return the bytes of a sample as they were first written."""
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def write_missing() -> None:
    """Write golden files of messages that have none; what is there is never overwritten."""
    GOLDEN.mkdir(exist_ok=True)
    texts = {"usage.json": encode_usage_json(USAGE).decode() + "\n"}
    for name, message in SAMPLES.items():
        texts[f"{name}.hex"] = encode(message).hex(" ", 32) + "\n"
        texts[f"{BUNDLED[type(message)][0]}.avsc"] = schema_text(name)
    for name, text in texts.items():
        if not (GOLDEN / name).exists():
            (GOLDEN / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write_missing()
