"""How a policy is rolled out to more and more of the keys by itself."""

import itertools
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from spendbrake.schemas.parts.currency import moment_of
from spendbrake.schemas.parts.part import Part


class Widening(Part):
    """A share of the keys, and from which moment of the log's clock on it is bound."""

    percent: Annotated[float, Field(gt=0, le=100)]
    valid_from: datetime = Field(description="UTC where no offset is given.")


def _in_order(steps: tuple[Widening, ...]) -> tuple[Widening, ...]:
    for before, after in itertools.pairwise(steps):
        if moment_of(after.valid_from) <= moment_of(before.valid_from):
            raise ValueError("the earliest first, each from a moment of its own")
        if after.percent <= before.percent:
            raise ValueError(f"each binds more of the keys than the one before: {after.percent:g} does not")
    return steps


Rollout = Annotated[tuple[Widening, ...], AfterValidator(_in_order)]
