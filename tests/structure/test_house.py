"""The locks, the image and the compose file say the same as the project."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from structure.tree import ROOT

PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)


def pins(lock: str) -> set[tuple[str, str]]:
    return set(PIN.findall((ROOT / lock).read_text()))


def resolved() -> dict[tuple[str, str], set[str]]:
    """Hashes by name and version, as uv.lock has them."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {
        (package["name"], package["version"]): {
            file["hash"] for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        }
        for package in packages
        if package["name"] != "spendbrake"
    }


def test_the_lock_that_pip_reads_is_the_lock_of_uv() -> None:
    assert pins("requirements-dev.lock") == set(resolved()), "run make lock"
    hashes = set(re.findall(r"--hash=(\S+)", (ROOT / "requirements-dev.lock").read_text()))
    assert hashes == set().union(*resolved().values()), "run make lock"


def test_the_image_installs_the_same_versions_without_development_tools() -> None:
    assert pins("requirements.lock") < pins("requirements-dev.lock"), "run make lock"
    names = {name for name, _ in pins("requirements.lock")}
    assert {"faust-streaming", "redis", "starlette"} <= names
    assert not {"pytest", "mypy", "ruff"} & names


def test_every_dependency_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {re.split(r"[<>=;\[ ]", line, maxsplit=1)[0].lower() for line in declared}
    assert names <= {name for name, _ in pins("requirements-dev.lock")}, "run make lock"


def test_the_compiled_wheel_is_made_by_the_mypy_of_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["dependencies"]
    assert {PIN.findall(line)[0] for line in asked if line.startswith("mypy")} <= pins("requirements-dev.lock")


def test_the_compose_file_follows_the_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_ports_are_open_to_this_machine_only(services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_every_lasting_service_tells_whether_it_is_well(services) -> None:
    lasting = {name: service for name, service in services.items() if service.get("restart") != "no"}
    assert {"kafka", "valkey", "burn", "parents", "act-limits", "act-slack", "act-webhook", "api"} == set(lasting)
    assert [name for name, service in lasting.items() if "healthcheck" not in service] == []


def test_our_containers_can_write_nothing_and_gain_nothing(services) -> None:
    ours = {name: service for name, service in services.items() if "build" in service}
    assert len(ours) == 8
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_workers_join_after_the_topics_are_there(services) -> None:
    assert services["policy"]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    for name in ("burn", "parents", "act-limits", "act-slack", "act-webhook", "api"):
        assert services[name]["depends_on"]["policy"] == {"condition": "service_completed_successfully"}, name


def test_no_secret_is_written_into_the_compose_file(services) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(("SECRET", "TOKEN", "PASSWORD")):
                assert str(value).startswith("${"), f"{name}: {variable}"


def test_variables_of_the_compose_file_are_settings(services, monkeypatch: pytest.MonkeyPatch) -> None:
    from spendbrake.streams.settings import Settings, unknown_names

    for name, service in services.items():
        if "build" in service:
            with monkeypatch.context() as patch:
                for variable, value in service["environment"].items():
                    patch.setenv(variable, re.sub(r"\$\{.*", "a-secret-of-some-length-or-more-than-that", str(value)))
                settings = Settings.load()
                assert settings.bootstrap_servers == "kafka:9092", name
                assert settings.n_partitions == 32
                assert unknown_names() == ()


def test_the_image_has_the_compiled_detectors() -> None:
    steps = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("HATCH_BUILD_HOOK_ENABLE_CUSTOM=true" in line for line in steps if line.startswith("RUN "))
    assert "!hatch_build.py" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_image_runs_as_nobody_in_particular() -> None:
    steps = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line for line in steps if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"USER root", "USER 0"}
    assert any(line.startswith("HEALTHCHECK ") for line in steps)
