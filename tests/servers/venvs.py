"""Programs of other projects from the package index, each in a virtual environment of its own in the user's cache."""

import fcntl
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path


class InstallError(RuntimeError):
    """The environment cannot be made; the message holds the installer's output."""


def environment(name: str, *packages: str) -> Path:
    """Return the folder of programs of an environment with these packages, made on first use (uv or pip)."""
    key = sha256("\n".join((sys.version, *packages)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spendbrake"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{key}"
    ready = folder / "ready"
    with (cache / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, packages)
            ready.touch()
    return folder / "bin"


def _make(folder: Path, packages: tuple[str, ...]) -> None:
    uv = shutil.which("uv")
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages)
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "--quiet", *packages)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
