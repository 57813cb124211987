"""Requests between the processes of a deployment, signed with its secret: who holds it needs no token of its own."""

import hashlib
import hmac
from collections.abc import Sequence

HOP = "x-spendbrake-hop"
"""Marks a request that another process passes on: it is answered here or not at all."""
WINDOW_S = 30.0
"""Furthest that two processes' clocks may differ, with the way between them."""


def sign(secret: bytes, method: str, target: str, now: float) -> str:
    """Return the value of the header; `target` is path and query as sent."""
    at = f"{now:.0f}"
    return f"v1,{at},{_digest(secret, method, target, at)}"


def genuine(value: str, secrets: Sequence[bytes], method: str, target: str, now: float) -> bool:
    """Tell whether a process that holds one of the secrets signed this very request within the window."""
    version, _, rest = value.partition(",")
    at, _, digest = rest.partition(",")
    if version != "v1" or not at.isascii() or not at.isdigit() or abs(now - float(at)) > WINDOW_S:
        return False
    # All are compared, so that time does not tell which one it was.
    return any([hmac.compare_digest(digest.encode(), _digest(each, method, target, at).encode()) for each in secrets])


def _digest(secret: bytes, method: str, target: str, at: str) -> str:
    text = "\0".join(("spendbrake.hop.v1", method, target, at))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
