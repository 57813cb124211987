"""Approvers of the policy file: who may approve in Slack, and by which names one person goes."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from spendbrake.schemas.parts.part import Name, Part

Alias = Annotated[str, Field(min_length=1, max_length=256, pattern=r"\S")]


class Approvers(Part):
    """Who may give which approval by a button in Slack: user ids. One person is one approver, of the first role."""

    finance: tuple[str, ...] = ()
    engineering: tuple[str, ...] = ()
    people: Mapping[Name, tuple[Alias, ...]] = Field(
        default_factory=dict,
        description="By person the names they ask and decide by: `token:NAME` of their tokens, `slack:USER_ID`, and "
        "NAME where the command line has them.",
    )

    @field_validator("people")
    @classmethod
    def _one_each(cls, people: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        known: dict[str, str] = {}
        for person, aliases in people.items():
            for name in (person, *aliases):
                if (other := known.setdefault(plain(name), person)) != person:
                    raise ValueError(f"{name!r} is {other!r} as well as {person!r}")
        return people

    def named(self) -> Mapping[str, str]:
        """Return the person by each name that is given here, as `plain` writes names."""
        return {plain(alias): plain(person) for person, aliases in self.people.items() for alias in (person, *aliases)}


def plain(by: str) -> str:
    """Return a name without what one person may write otherwise: case, blanks, and that a token or Slack said it.

    Examples:
        >>> plain(" Ada "), plain("token:ada"), plain("slack:UADA")
        ('ada', 'ada', 'uada')
    """
    name = by.strip().casefold()
    return name.removeprefix("token:").removeprefix("slack:").strip()
