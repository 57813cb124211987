"""Envoy's external authorization in our words: which call a request is, and what Envoy is to do with it. Pure.

Envoy says whose call it is in `x-spendbrake-key`: set by a filter that has authenticated the caller, never by the
caller. The model is that of the JSON body (`with_request_body`), else of `x-spendbrake-model`. A body that another
reader may read otherwise (cut, broken, two models) is refused rather than guessed at.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.verdict import CheckResult

KEY, MODEL = "x-spendbrake-key", "x-spendbrake-model"
PARTIAL = "x-envoy-auth-partial-body"
"""What Envoy itself says of a body: whether it is cut."""
ENVIRONMENT, PROJECT = "x-spendbrake-environment", "x-spendbrake-project"
QUOTA_STATUS = 429
IN_A_HEADER = re.compile(r"[\x20-\x7e\xa0-\xff]*")
SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


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
    try:
        models = _models(body, partial)
    except (ValueError, RecursionError):
        return _refused(400, "bad_body", "the body begins like a JSON object, and none can be read in it")
    if len(models) > 1:
        return _refused(400, "bad_model", "the body names more than one model")
    if not models and partial:
        return _refused(413, "too_large", "the part of the body that is sent for authorization names no model")
    named = models[0] if models else None
    said = named if isinstance(named, str) and named else headers.get(MODEL, "")
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


def _models(body: bytes, partial: bool) -> list[Any]:
    """Return what a JSON object names as its model: readers differ in which of several they take.

    Raises:
        ValueError, RecursionError: it begins like an object, but cannot be read to its end.
    """
    text = body.decode(json.detect_encoding(body), "replace")
    found = []
    try:
        for name, value in _members(text):
            if name.lower() == "model":  # Some servers do not mind the case.
                found.append(value)
    except (ValueError, RecursionError):
        if not partial:
            raise
    return found


def _members(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of the object that a text is, none where it is something else."""
    at = _skipped(text, 0)
    if text[at : at + 1] != "{":
        return
    at = _skipped(text, at + 1)
    more = text[at : at + 1] != "}"
    while more:
        name, at = DECODER.raw_decode(text, at)
        at = _skipped(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            raise ValueError("no member")
        value, at = DECODER.raw_decode(text, _skipped(text, at + 1))
        yield name, value
        at = _skipped(text, at)
        more = text[at : at + 1] == ","
        at = _skipped(text, at + 1) if more else at
    if text[at : at + 1] != "}" or _skipped(text, at + 1) != len(text):
        raise ValueError("no end")


def _skipped(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None
    return found.end()


def _refused(status: int, code: str, message: str) -> Ruling:
    error = {"message": message, "type": "spendbrake", "code": code}
    headers = {"content-type": "application/json", "x-spendbrake-code": code}
    return Ruling(status=status, downstream=headers, body=_json({"error": error}))


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
