"""Records that are no good, one of each kind, each with the reason it must be refused for."""

from collections.abc import Iterator
from dataclasses import replace

import orjson

from kafka.deployment import SECRET
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.json import encode_usage_json, usage_to_object

Headers = tuple[tuple[str, bytes], ...]
Sent = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""


def call(name: str, team: str | None, at: float, **fields: object) -> UsageEvent:
    base = UsageEvent(
        request_id=name,
        time=at,
        api_key_id=f"key-{team}",
        provider="openai",
        model="gpt-4o",
        team=team,
        input_tokens=1_234,
        output_tokens=56,
    )
    return replace(base, **fields)


def poisons(number: int, now: float) -> Iterator[tuple[str, Sent]]:
    """Yield a record of each kind, with the reason it must be refused for."""
    event = call(f"bad-{number}", "poisoned", now)
    avro, json, key = encode(event), encode_usage_json(event), b"poisoned"
    fields = usage_to_object(event)

    def with_fields(**changed: object) -> bytes:
        return orjson.dumps({name: value for name, value in {**fields, **changed}.items() if value is not None})

    yield "truncated_avro", (key, avro[: len(avro) // 2], ())
    yield "unknown_schema", (key, b"\0" + (4_711).to_bytes(4, "big") + avro[5:], ())
    yield "not_an_object", (key, orjson.dumps([number, fields]), ())
    yield "not_json", (key, json[:-7], ())
    yield "not_utf8", (key, json.replace(b"gpt", b"\xff\xfe"), ())
    yield "negative_tokens", (key, with_fields(input_tokens=-number - 1), ())
    yield "absurd_tokens", (key, with_fields(output_tokens=10**15 + number), ())
    yield "missing_field", (key, with_fields(request_id=None), ())
    yield "bad_time", (key, with_fields(time=(now + number) * 1_000), ())
    yield "empty", (key, None, ())
    yield "unknown_version", (key, json, (("ce_specversion", b"0.3"),))
    yield "forged", (b"", b"", (("sb-kind", b"tick"),))
    wrong = seal("tick", USAGE.name, b"", b"", b"another secret than ours")
    yield "forged", (b"", b"", wrong)
    stolen = seal("forward", USAGE.name, key, avro, SECRET.encode())
    yield "forged", (b"another team", avro, stolen)
    yield "unknown_kind", (key, json, (("sb-kind", b"refund"),))
