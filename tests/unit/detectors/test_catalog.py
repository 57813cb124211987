"""How detectors are found, and what importing them costs."""

import subprocess
import sys
from types import ModuleType

import pytest

from spendbrake.detectors import base
from spendbrake.detectors.buckets import gaussian_tail
from spendbrake.detectors.catalog import collect, detectors, modules
from spendbrake.detectors.panel import Panel
from spendbrake.schemas.policy import Detection


def test_two_detectors_of_one_name_are_an_error() -> None:
    double = ModuleType("double")
    double.Copy = type("Copy", (gaussian_tail.GaussianTail,), {"__module__": "double"})  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="two detectors are named 'gaussian_tail'"):
        collect((gaussian_tail, double))


def test_a_detector_that_cannot_be_imported_is_not_passed_over(tmp_path, monkeypatch) -> None:
    package = tmp_path / "sick"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import sick

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        modules(sick)


def test_imported_base_classes_are_not_detectors() -> None:
    assert collect((gaussian_tail,)).keys() == {"gaussian_tail"}
    assert collect((sys.modules[base.__name__],)) == {}


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import spendbrake.detectors", []),
        ("import spendbrake.detectors.panel", ["numpy"]),
        (
            "from spendbrake.detectors.panel import Panel; from spendbrake.schemas.policy import Detection\n"
            "Panel(Detection())",
            ["numpy"],
        ),
        (
            "from spendbrake.detectors.forecast.methods import seasonal\nseasonal([10**9] * 40, 7)",
            ["numpy", "river", "scipy"],
        ),
    ],
)
def test_river_is_loaded_by_forecasts_alone(code: str, loaded: list[str]) -> None:
    code += "\nimport sys; print(sorted({'river', 'scipy', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        f"{loaded}\n"
    )


def test_a_misspelt_detector_or_parameter_is_named_with_its_place() -> None:
    with pytest.raises(ValueError, match="names no detector: gausian_tail"):
        Panel(Detection(params={"gausian_tail": {}}))
    with pytest.raises(ValueError, match=r"detection\.params\.half_space\.heigth"):
        Panel(Detection(params={"half_space": {"heigth": 5}}))
    with pytest.raises(ValueError, match=r"detection\.params\.gate\.release = 2"):
        Panel(Detection(params={"gate": {"release": 2}}))


def test_a_detector_can_be_switched_off() -> None:
    panel = Panel(Detection(params={name: {"enabled": False} for name in detectors()}))
    assert panel.buckets == []
    assert panel.facts == []
