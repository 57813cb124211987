"""The distributions: a wheel built from the sdist holds the tree, whole, under one name."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from structure.tree import FOLDERS, ROOT

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, into: Path) -> Path:
    run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", into, source, cwd=into)
    (made,) = into.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return build("wheel", source, folder)


def in_tree() -> set[str]:
    """What git would keep of the package, as paths in the wheel."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS, cwd=ROOT)
    names = {f"spendbrake/{name}" for name in listed.splitlines() if (ROOT / name).is_file()}
    return names | {"spendbrake/__init__.py", "spendbrake/py.typed"}


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == in_tree()


def test_package_data_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        kinds = {Path(name).suffix for name in archive.namelist()}
    assert {".avsc", ".lua", ".yaml", ".typed"} <= kinds


def test_a_clean_environment_imports_it(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    assert run(python, "-c", "import spendbrake; print(spendbrake.__version__)", cwd=tmp_path).strip() == "0.1.0"
    run(python, "-m", "pip", "install", "--quiet", f"spendbrake @ {wheel.as_uri()}", cwd=tmp_path)
    run(python, "-c", "from spendbrake import AsyncGuard, Guard", cwd=tmp_path)
