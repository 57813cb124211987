"""Money is an int of nano-USD (1e-9 USD); rates are ints of pico-USD (1e-12 USD) a token. Never a float."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import TypeAlias

NanoUsd: TypeAlias = int
PicoUsd: TypeAlias = int

NANO = 10**9
PICO = 10**12
PICO_PER_NANO = 1_000
MAX_NANO = 2**62
"""Largest limit, nano-USD: two of them still add without overflow in int64."""
MAX_EVENT = 10**15
"""Most that one event may cost, or one price fix may move in a minute, nano-USD: 1,000,000 USD.

A sum in int64 holds 9.2 billion USD: it takes 9,223 such events to wrap one."""

MAX_RATE: PicoUsd = 3 * 10**9
"""Largest rate, pico-USD a token (3,000 USD a million): three token counts of 1e9 at it still fit in int64."""


def to_nano(usd: Decimal | int | str | float) -> NanoUsd:
    """Return `usd` as nano-USD, rounded half to even.

    A float is read by its shortest decimal form, so `0.1` is one tenth.

    Raises:
        ValueError: not a finite number, or past `MAX_NANO`.

    Examples:
        >>> to_nano("0.166250")
        166250000
        >>> to_nano(0.1)
        100000000
    """
    try:
        amount = Decimal(repr(usd) if isinstance(usd, float) else usd)
        # Before any arithmetic: "1e999990" would take minutes to become an int.
        absurd = amount.is_finite() and amount.adjusted() > len(str(MAX_NANO // NANO))
        nano = 0 if absurd else int((amount * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValueError(f"not an amount of USD: {usd!r}") from error
    if absurd or abs(nano) > MAX_NANO:
        raise ValueError(f"amount out of range: {usd!r} USD")
    return nano


def pico_to_nano(pico: int) -> NanoUsd:
    """Return pico-USD as nano-USD, rounded half to even.

    Examples:
        >>> [pico_to_nano(x) for x in (499, 500, 501, 1500, -500, -1500)]
        [0, 0, 1, 2, 0, -2]
    """
    whole, rest = divmod(pico, PICO_PER_NANO)
    half = PICO_PER_NANO // 2
    return whole + (rest > half or (rest == half and whole & 1 == 1))


def to_usd(nano: NanoUsd) -> Decimal:
    """Return nano-USD as an exact Decimal of USD."""
    return Decimal(nano).scaleb(-9)


def usd_text(nano: NanoUsd, places: int = 2) -> str:
    """Return an amount for people; the exact figure belongs in `to_usd`.

    Examples:
        >>> usd_text(1_234_567_890_123), usd_text(-4_200_000, 4)
        ('$1,234.57', '-$0.0042')
    """
    sign = "-" if nano < 0 else ""
    return f"{sign}${abs(to_usd(nano)):,.{places}f}"


def units_text(nano: NanoUsd, unit_usd: Decimal, places: int = 2) -> str:
    """Return an amount in units of another currency, for people; `unit_usd` is what a unit is worth.

    Examples:
        >>> units_text(451_200_000_000, Decimal("0.01"))
        '45,120.00'
    """
    return f"{to_usd(nano) / unit_usd:,.{places}f}"
