"""Compiles the modules in which the interpreter spends a closed bucket, into a wheel for one platform.

Off unless `HATCH_BUILD_HOOK_ENABLE_CUSTOM=true`. Sources stay as they are and are in the wheel, too; nothing is
written beside them.
"""

import os
import re
import shutil
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BOUNDED = re.compile(r"^(    \w+: )(Annotated\[.*\])( = .*)$", re.MULTILINE)
"""A field of a pydantic model with bounds."""


class Compiled(BuildHookInterface[BuilderConfig]):
    """Mypyc over a copy of the package; what it makes goes into the wheel beside the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what was compiled to a wheel that is no editable one."""
        if self.target_name != "wheel" or version != "standard":
            return
        from mypyc.build import mypycify
        from setuptools import setup

        # What is made must outlast this call; on whatever way the build ends, the interpreter clears it away.
        self._folders = [TemporaryDirectory(prefix="spendbrake-") for _ in range(2)]
        copy, made = (Path(folder.name) for folder in self._folders)
        shutil.copytree(Path(self.root, ".pkg", "spendbrake"), copy / "spendbrake")
        modules = sorted(str(path.relative_to(copy)) for path in self._sources(copy))
        for module in modules:  # mypyc keeps of `Annotated[float, ...]` the float only, of words all
            text = (copy / module).read_text(encoding="utf-8")
            (copy / module).write_text(BOUNDED.sub(r'\1"\2"\3', text), encoding="utf-8")
        options = [f"--config-file={Path(self.root, 'pyproject.toml')}", "--explicit-package-bases"]
        with chdir(copy):
            os.environ["MYPYPATH"] = "."
            extensions = mypycify([*options, *modules], group_name="spendbrake", target_dir="c")
            setup(
                name="spendbrake",
                packages=[],
                ext_modules=extensions,
                script_args=["--quiet", "build_ext", f"--build-lib={made}", f"--build-temp={copy / 'objects'}"],
            )
        build_data |= {"pure_python": False, "infer_tag": True}
        build_data["force_include"] |= {str(path): str(path.relative_to(made)) for path in made.rglob("*.so")}
        self.app.display_info(f"{len(modules)} modules compiled: {', '.join(modules)}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear away."""
        for folder in getattr(self, "_folders", ()):
            folder.cleanup()

    def _sources(self, copy: Path) -> set[Path]:
        """Return what the hook's `include` names in the package, but for its `exclude`."""
        package = copy / "spendbrake"
        chosen = {path for pattern in self.config["include"] for path in package.glob(pattern)}
        return chosen - {path for pattern in self.config["exclude"] for path in package.glob(pattern)}
