"""The published JSON Schemas, from the tables that check records. Run as a module, it writes them to schemas/json."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from spendbrake.schemas.money import MAX_EVENT, MAX_NANO, NANO
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS
from spendbrake.schemas.wire import rules
from spendbrake.schemas.wire.json import JSON_CHECKS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NULL = {"type": "null"}
_TEXT = {"type": ["string", "null"], "maxLength": MAX_NAME}
_SHAPES: dict[rules.Check, dict[str, Any]] = {
    rules.check_name: {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
    rules.check_optional: _TEXT,
    rules.check_tokens: {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_TOKENS},
    rules.check_units: {"type": ["number", "null"], "minimum": 0, "maximum": MAX_NANO},
    rules.check_latency: {"type": ["number", "null"], "minimum": 0, "maximum": MAX_NANO},
    rules.check_error_code: {"anyOf": [_TEXT, {"type": "integer"}]},
    rules.check_kind: {"enum": ["final", "estimate", "correction", None]},
    rules.check_labels: {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
    rules.check_time: {
        "anyOf": [
            {"type": "number", "minimum": 0, "exclusiveMaximum": rules.MAX_TIME, "description": "Epoch seconds UTC."},
            {"type": "string", "format": "date-time"},
        ]
    },
    rules.check_cost_usd: {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": MAX_EVENT // NANO},
            {"type": "string", "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"},
            _NULL,
        ]
    },
}
_ORIGINAL = {"anyOf": [{"$ref": "#"}, _NULL]}


def usage_schema() -> dict[str, Any]:
    """Return the JSON Schema of a usage event in JSON: what is sent as plain JSON or as the data of a CloudEvent."""
    return {
        "$schema": DIALECT,
        "$id": "urn:spendbrake:schema:usage.v1",
        "title": "UsageEvent",
        "description": "One billed call. source and request_id together are the dedupe key.",
        "type": "object",
        "required": list(rules.REQUIRED),
        "properties": {name: _SHAPES.get(check, _ORIGINAL) for name, check in JSON_CHECKS.items()},
        "if": {"properties": {"kind": {"const": "correction"}}, "required": ["kind"]},
        "then": {"properties": {"replaces": {"$ref": "#"}}, "required": ["replaces"]},
        "else": {"properties": {"replaces": _NULL}},
    }


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of the policy file."""
    return {"$schema": DIALECT, "$id": "urn:spendbrake:schema:policy.v1", **PolicyFile.model_json_schema()}


def published() -> dict[str, str]:
    """Return the text of each published schema by its name."""
    schemas = {"policy.v1": policy_schema(), "usage.v1": usage_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def folder() -> Path:
    """Return where the published schemas lie."""
    return Path(str(files("spendbrake.schemas").joinpath("json")))


def main() -> None:
    """Write the schemas into schemas/json."""
    folder().mkdir(exist_ok=True)
    for name, text in published().items():
        folder().joinpath(f"{name}.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
