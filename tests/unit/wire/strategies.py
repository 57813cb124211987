"""Usage events as hypothesis draws them: everything the rules allow."""

import string

from hypothesis import strategies as st

from spendbrake.schemas.money import MAX_EVENT
from spendbrake.schemas.usage import MAX_TOKENS, UsageEvent

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
maybe = st.none() | texts
# Microseconds, as Avro has them.
times = st.integers(0, 4_102_444_799_999_999).map(lambda micros: micros / 1_000_000)
counts = st.integers(0, MAX_TOKENS)


@st.composite
def events(draw: st.DrawFn, kind: str = "final", **fixed: object) -> UsageEvent:
    """Return any valid event; session_id is given where trace_id is, as the reader would put it."""
    total = draw(counts)
    cache_read = draw(st.integers(0, total))
    trace_id = draw(maybe)
    fields: dict = {
        "request_id": draw(texts),
        "source": draw(texts),
        "time": draw(times),
        "api_key_id": draw(texts),
        "provider": draw(texts),
        "model": draw(texts),
        "requested_model": draw(maybe),
        "operation": draw(texts),
        "team": draw(maybe),
        "project": draw(maybe),
        "environment": draw(maybe),
        "session_id": draw(texts) if trace_id else draw(maybe),
        "input_tokens": total,
        "cache_read_tokens": cache_read,
        "cache_write_tokens": draw(st.integers(0, total - cache_read)),
        "output_tokens": draw(counts),
        "units": draw(st.none() | st.floats(0, 1e9)),
        "unit": draw(maybe),
        "cost": draw(st.none() | st.integers(0, MAX_EVENT)),
        "labels": draw(st.dictionaries(st.text(string.ascii_lowercase + "_ö", min_size=1).map("x".__add__), texts)),
        "trace_id": trace_id,
        "latency_ms": draw(st.none() | st.integers(0, 10**9)),
        "error_code": draw(maybe),
        "kind": kind,
    }
    return UsageEvent(**{**fields, **fixed})  # type: ignore[arg-type]


def corrections() -> st.SearchStrategy[UsageEvent]:
    """Return corrections of any event."""
    return events().flatmap(lambda original: events("correction", replaces=original))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
