"""A real Gitea as a process on 127.0.0.1: built from its Go module on first use, into the user's cache."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from servers.gateways import Gateway
from servers.valkey import free_port

MODULE, VERSION = "code.gitea.io/gitea", "v1.26.0"
USER, REPOSITORY = "bot", "spend"
CONFIG = """
WORK_PATH = {folder}
RUN_USER = {user}
[server]
STATIC_ROOT_PATH = {source}
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
[security]
INSTALL_LOCK = true
SECRET_KEY = of-this-test-alone
[indexer]
ISSUE_INDEXER_TYPE = db
[actions]
ENABLED = false
[log]
LEVEL = warn
"""


class BuildError(RuntimeError):
    """The program cannot be made; the message holds what the tool has said."""


@dataclass(frozen=True)
class Forge:
    """A Gitea with a user, its token, and an empty repository."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        """Ask the API about the repository."""
        url = f"{self.url}/repos/{USER}/{REPOSITORY}{path}"
        return (
            httpx.get(url, headers={"authorization": f"token {self.token}"}, trust_env=False).raise_for_status().json()
        )


def program() -> tuple[Path, Path]:
    """Return the program and the sources with its templates."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spendbrake" / f"gitea-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    source, made = cache / "source", cache / "gitea"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(source, ignore_errors=True)
            _run("go", "mod", "download", f"{MODULE}@{VERSION}", cwd=cache)
            modules = _run("go", "env", "GOMODCACHE", cwd=cache).strip()
            shutil.copytree(Path(modules) / f"{MODULE}@{VERSION}", source)
            _run("chmod", "-R", "u+w", str(source), cwd=cache)
            tags = "sqlite sqlite_unlock_notify"
            _run("go", "build", "-tags", tags, "-ldflags", "-s -w", "-o", str(made), ".", cwd=source)
    return made, source


@contextmanager
def gitea(folder: Path) -> Iterator[Forge]:
    """Run a Gitea whose data lies in `folder`."""
    made, source = program()
    port, user, config = free_port(), _run("id", "-un", cwd=folder).strip(), folder / "app.ini"
    config.write_text(CONFIG.format(folder=folder, source=source, port=port, user=user))
    command = [str(made), "--config", str(config)]
    more = {"GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT": "true"}
    _run(*command, "migrate", cwd=folder, more=more)
    account = ["--username", USER, "--random-password", "--email", "bot@example.com", "--must-change-password=false"]
    token = ["--access-token", "--access-token-scopes", "write:issue,write:repository,write:user"]
    said = _run(*command, "admin", "user", "create", *account, *token, cwd=folder, more=more)
    with Gateway(folder, [*command, "web"], port, "/api/healthz", more) as server:
        forge = Forge(f"{server.url}/api/v1", said.split()[-1])
        headers = {"authorization": f"token {forge.token}"}
        made_it = httpx.post(f"{forge.url}/user/repos", json={"name": REPOSITORY}, headers=headers, trust_env=False)
        assert made_it.status_code == 201, made_it.text
        yield forge


def _run(*command: str, cwd: Path, more: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | (more or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}"[-4_000:])
    return done.stdout
