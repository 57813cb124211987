"""The starter policy: what holds when no policy file is given, and what `policy init` writes."""

from functools import cache
from importlib.resources import files
from typing import Any

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.load import load


def starter_text() -> str:
    """Return the commented YAML."""
    return files(__package__).joinpath("starter.yaml").read_text(encoding="utf-8")


def unbudgeted() -> dict[str, Any]:
    """Return the starter policy as data, without its amounts: nobody has set a budget for a file of events."""
    document = starter_policy().model_dump(mode="json", exclude_unset=True)
    for limits in (*document["defaults"].values(), document["untagged"]):
        for name in [name for name in limits if name.startswith("monthly_")]:
            del limits[name]
    return document


@cache
def starter_policy() -> PolicyFile:
    """Return the starter policy, checked."""
    return load(starter_text())
