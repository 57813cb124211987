"""Names of what a call belongs to. They are looked up with each call, so the same text is made once."""

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
