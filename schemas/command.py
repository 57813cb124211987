"""Records the service writes into its own logs: each names its kind in a header and is signed."""

from typing import Literal, TypeAlias

InternalKind: TypeAlias = Literal["tick", "forward", "command", "delta", "rollup"]
INTERNAL_KINDS: frozenset[str] = frozenset({"tick", "forward", "command", "delta", "rollup"})

KIND_HEADER = "sb-kind"
SIGNATURE_HEADER = "sb-signature"
"""HMAC-SHA256 over kind, topic, partition-independent key and value; see schemas/wire/envelope.py."""
ORIGIN_HEADER = "sb-origin"
"""`topic/partition/offset` of the record this one was made from."""
