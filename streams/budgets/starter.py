"""The starter policy: what holds when no policy file is given, and what `policy init` writes."""

from functools import cache
from importlib.resources import files

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.load import load


def starter_text() -> str:
    """Return the commented YAML."""
    return files(__package__).joinpath("starter.yaml").read_text(encoding="utf-8")


@cache
def starter_policy() -> PolicyFile:
    """Return the starter policy, checked."""
    return load(starter_text())
