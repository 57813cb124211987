"""The published JSON Schemas are valid, are those of the code, and agree with what the reader does."""

import json

import jsonschema
import pytest
from hypothesis import given, settings

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.schemas.wire.publish import folder, published, usage_schema
from unit.wire.strategies import corrections, events
from unit.wire.test_json import BAD, PLAIN

USAGE = jsonschema.Draft202012Validator(usage_schema())
BEYOND_A_SCHEMA = {"cache_exceeds_input"}
"""Rules between two fields: no schema can tell."""
OF_THE_CONTENT = {"2025-11-13", "2025-11-13T02:13:20", "1763000000", "soon", "1e999990"}
"""Texts that a schema takes: `format` is an annotation in JSON Schema, and a pattern does not bound a number."""


def test_the_files_are_what_the_code_says_now() -> None:
    on_disk = {path.stem: path.read_text("utf-8") for path in folder().glob("*.json")}
    assert on_disk == published(), "run python -m spendbrake.schemas.wire.publish"


@pytest.mark.parametrize("name", sorted(published()))
def test_a_published_schema_is_a_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(published()[name]))


@settings(max_examples=30)
@given(events() | corrections())
def test_what_the_product_writes_fits_the_schema(event: UsageEvent) -> None:
    USAGE.validate(json.loads(encode_usage_json(event)))


@pytest.mark.parametrize(("fields", "reason", "field"), BAD)
def test_what_the_reader_refuses_the_schema_refuses(fields: dict, reason: str, field: str) -> None:
    event = {**PLAIN, **fields}
    tells = reason not in BEYOND_A_SCHEMA and not any(str(value) in OF_THE_CONTENT for value in fields.values())
    assert USAGE.is_valid(event) is not tells


def test_the_policy_schema_takes_a_policy_and_refuses_a_misspelt_cap() -> None:
    policy = jsonschema.Draft202012Validator(json.loads(published()["policy.v1"]))
    node = {"id": "acme", "level": "organization", "monthly_budget_usd": 100}
    assert policy.is_valid({"nodes": [node]})
    assert not policy.is_valid({"nodes": [{**node, "monthly_bugdet_usd": 100}]})
