"""Names of what a call belongs to. They are looked up with each call, so the same text is made once."""

import hashlib
from functools import lru_cache


@lru_cache(maxsize=8_192)
def key_label(key: str) -> str:
    """Return the name of an API key among keys, models and projects."""
    return f"key/{key}"


@lru_cache(maxsize=1_024)
def model_label(model: str) -> str:
    """Return the name of a model likewise."""
    return f"model/{model}"


@lru_cache(maxsize=8_192)
def project_label(project: str) -> str:
    """Return the name of a project likewise."""
    return f"project/{project}"


@lru_cache(maxsize=4096)
def pseudonym(key: str, model: str) -> int:
    """Return a number for the calls of a key to a model that name no session."""
    return int.from_bytes(hashlib.blake2b(f"{key}\x1f{model}".encode(), digest_size=8).digest(), "little") or 1
