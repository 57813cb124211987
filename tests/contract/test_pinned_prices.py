"""What is used of genai-prices beyond its documentation: the data of another release, out of its wheel."""

from pathlib import Path
from zipfile import ZipFile

import genai_prices
import pytest

from spendbrake.streams.engine.prices.data import BUNDLED, SOURCE, read_wheel


def wheel(folder: Path, name: str, text: str) -> Path:
    path = folder / "genai_prices-0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(name, text)
    return path


def test_the_data_of_a_wheel_is_what_the_package_has_when_installed(tmp_path: Path) -> None:
    text = (Path(genai_prices.__file__).parent / "data.py").read_text()
    assert read_wheel(wheel(tmp_path, SOURCE, text)) == BUNDLED


@pytest.mark.parametrize(
    ("name", "text"),
    [("other.py", ""), (SOURCE, "from .types import NothingOfThisName"), (SOURCE, "x = 1")],
)
def test_a_wheel_without_such_data_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match="genai-prices"):
        read_wheel(wheel(tmp_path, name, text))


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a wheel"):
        read_wheel(tmp_path / "x.whl")
