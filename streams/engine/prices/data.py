"""The data of genai-prices: what is bundled here, and what an earlier release of it had, out of its wheel."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeAlias
from zipfile import BadZipFile, ZipFile

from genai_prices.data import providers
from genai_prices.types import Provider

Data: TypeAlias = Sequence[Provider]

BUNDLED: Data = providers
SOURCE = "genai_prices/data.py"


def read_wheel(path: Path) -> Data:
    """Return the price data of another release of genai-prices, by the types of the one that is installed.

    Its data module is run: a wheel is trusted as much as if it were installed.

    Raises:
        ValueError: no such wheel, or one whose data the installed release cannot take.
    """
    try:
        text = ZipFile(path).read(SOURCE)
    except (BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: not a wheel of genai-prices: {error}") from None
    module = ModuleType("genai_prices.earlier")
    module.__package__ = "genai_prices"
    try:
        exec(compile(text, f"{path}/{SOURCE}", "exec"), module.__dict__)
        data: Data = module.providers
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the installed release of genai-prices cannot take its data: {error}") from None
    return data
