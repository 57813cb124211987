"""Prices of the policy file: overrides of the price book, and what an unknown model is taken to cost."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from spendbrake.schemas.parts.part import Part

UsdPerMtok = Annotated[Decimal, Field(ge=0, le=3_000, allow_inf_nan=False)]
"""At most `money.MAX_RATE`. A price per token or per thousand given by mistake is refused with it."""


class PriceOverride(Part):
    """A price of one's own, USD per million tokens, from a moment of event time on."""

    provider: str
    model: str
    valid_from: datetime | None = None
    input_usd_per_mtok: UsdPerMtok
    output_usd_per_mtok: UsdPerMtok
    cache_read_usd_per_mtok: UsdPerMtok | None = Field(None, description="The input price when absent.")
    cache_write_usd_per_mtok: UsdPerMtok | None = Field(None, description="The input price when absent.")


class Prices(Part):
    """Overrides of the price book, and what an unknown model is taken to cost."""

    overrides: tuple[PriceOverride, ...] = ()
    unpriced_input_usd_per_mtok: UsdPerMtok = Decimal(15)
    unpriced_output_usd_per_mtok: UsdPerMtok = Decimal(75)
