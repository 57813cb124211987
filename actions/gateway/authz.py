"""Envoy's external authorization in our words: which call a request is, and what Envoy is to do with it. Pure.

Envoy says whose call it is in `x-spendbrake-key`: set by a filter that has authenticated the caller, never by the
caller. The model is that of the JSON body (`with_request_body`), else of `x-spendbrake-model`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.verdict import CheckResult

KEY, MODEL = "x-spendbrake-key", "x-spendbrake-model"
ENVIRONMENT, PROJECT = "x-spendbrake-environment", "x-spendbrake-project"
QUOTA_STATUS = 429
IN_A_HEADER = re.compile(r"[\x20-\x7e\xa0-\xff]*")
IN_PART = re.compile(r'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
"""Finds the model in a body that has come in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What Envoy is to do.

    Attributes:
        status: 200 lets the request pass; else what the caller is answered.
        upstream: Headers that the request goes on with, in place of what the caller has sent.
        downstream: Headers of the answer to the caller.
    """

    status: int
    upstream: Mapping[str, str] = field(default_factory=dict)
    downstream: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def call_of(headers: Mapping[str, str], body: bytes, *, partial: bool = False) -> Call | Ruling:
    """Return the call that a request is, or why it cannot be told; header names are in small letters."""
    key = headers.get(KEY, "").strip()
    if not key:
        return _refused(401, "no_key", f"{KEY} is not set: nobody has authenticated the caller")
    model = _model(body, partial)
    if model is None and partial:
        return _refused(413, "too_large", "the part of the body that is sent for authorization names no model")
    said = model or headers.get(MODEL, "")
    if not IN_A_HEADER.fullmatch(said):
        return _refused(400, "bad_model", "the body names a model that no header can hold")
    return Call(key, said, headers.get(ENVIRONMENT) or None, headers.get(PROJECT) or None)


def ruling_of(call: Call, result: CheckResult, now: float) -> Ruling:
    """Return what Envoy is to do. The upstream finds the model to use in `x-spendbrake-model`, whatever the verdict."""
    if not result.allowed:
        refusal = result.refusal(now, QUOTA_STATUS)
        headers = {"content-type": "application/json", **refusal.headers}
        return Ruling(status=refusal.status, downstream=headers, body=_json(refusal.body))
    headers = result.headers()
    verdict = {
        name: value for name, value in headers.items() if name in ("x-spendbrake-verdict", "x-spendbrake-action")
    }
    return Ruling(status=200, upstream={MODEL: result.model, KEY: call.key, **verdict}, downstream=headers)


def _model(body: bytes, partial: bool) -> str | None:
    """Return the model that a JSON body names."""
    try:
        told = json.loads(body) if body else None
    except (ValueError, RecursionError):
        found = IN_PART.search(body.decode("utf-8", "replace")) if partial else None
        try:
            return str(json.loads(found[1])) if found else None
        except ValueError:
            return None
    model = told.get("model") if isinstance(told, dict) else None
    return model if isinstance(model, str) else None


def _refused(status: int, code: str, message: str) -> Ruling:
    error = {"message": message, "type": "spendbrake", "code": code}
    headers = {"content-type": "application/json", "x-spendbrake-code": code}
    return Ruling(status=status, downstream=headers, body=_json({"error": error}))


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
