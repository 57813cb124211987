"""Names of models: whether two are of one model. They differ by provider, region, version and date."""

import re

_PREFIX = re.compile(r"^(?:[a-z0-9-]+\.)+(?=[a-z])")
"""Bedrock's region and vendor: `us.anthropic.`."""
_VERSION = re.compile(
    r"(?:@[a-z0-9]+|:\d+|-v\d+|-00\d|-latest|-preview|-exp"
    r"|[-@]20\d\d-?\d\d-?\d\d|-\d\d-\d\d|-(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])|-2[3-9](?:0[1-9]|1[0-2]))$"
)
"""What a name may end in: a date in any of the ways of the providers, a revision, or that it is the latest."""


def bare(name: str) -> str:
    """Return a model's name without provider, region, version and date.

    Examples:
        >>> bare("azure/gpt-4o-2024-08-06"), bare("us.anthropic.claude-sonnet-4-5-20250929-v1:0")
        ('gpt-4o', 'claude-sonnet-4-5')
        >>> bare("openrouter/anthropic/claude-sonnet-4.5"), bare("gpt-3.5-turbo-16k")
        ('claude-sonnet-4-5', 'gpt-3-5-turbo-16k')
    """
    name = _PREFIX.sub("", name.strip().lower().rpartition("/")[2])
    while (shorter := _VERSION.sub("", name)) not in (name, ""):
        name = shorter
    return name.replace(".", "-")


def one_model(requested: str, billed: str) -> bool:
    """Say whether two names are of one model: `requested` may name it without a version at all.

    Examples:
        >>> one_model("claude-3-5-sonnet-latest", "claude-3-5-sonnet@20241022"), one_model("gpt-5", "gpt-5-pro")
        (True, False)
        >>> one_model("claude-opus", "claude-opus-4-1"), one_model("gpt-4", "gpt-4o")
        (True, False)
    """
    asked, ran = bare(requested), bare(billed)
    if asked == ran:
        return True
    return re.search(r"\d", asked) is None and re.fullmatch(rf"{re.escape(asked)}(?:-\d+)+", ran) is not None
