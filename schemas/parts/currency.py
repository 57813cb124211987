"""Currencies of the policy file: credits or money of a billing group, and what a unit of it is worth in USD."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, model_validator

from spendbrake.schemas.parts.part import Name, Part

Amount = Annotated[Decimal, Field(ge=0, le=Decimal(10) ** 15, allow_inf_nan=False)]
"""Of a currency; in USD it may come to at most `policy.Usd`."""


class Rate(Part):
    """What one unit is worth from a moment of the log's clock on."""

    usd: Annotated[Decimal, Field(gt=0, le=Decimal(10) ** 6, allow_inf_nan=False)]
    valid_from: datetime | None = Field(None, description="UTC where no offset is given; only the first has none.")


class Currency(Part):
    """In what a node and those below it are given their amounts."""

    name: Name
    rates: Annotated[tuple[Rate, ...], Field(min_length=1, description="The oldest first.")]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        begins = [rate.valid_from for rate in self.rates]
        if begins[0] is not None or None in begins[1:]:
            raise ValueError("the first rate holds from the start, without `valid_from`; each later one says from when")
        later = [moment_of(begin) for begin in begins if begin is not None]
        if sorted(set(later)) != later:
            raise ValueError("rates: the oldest first, each from a moment of its own")
        return self


def moment_of(when: datetime) -> float:
    """Return a moment of the policy file as epoch seconds; UTC where it has no offset.

    Examples:
        >>> moment_of(datetime(1970, 1, 2))
        86400.0
    """
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
