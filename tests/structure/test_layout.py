"""R7: the tree stays small enough to be read. Each rule fails with the file and its count."""

import re
import subprocess
from collections import Counter

from structure.tree import FOLDERS, ROOT, functions, name_of, sources

LINES, LINES_HARD = 300, 500
FUNCTION_LINES = 40
FILES = {"schemas": 13}
FILES_DEFAULT = 10
LONGER: dict[str, str] = {}
"""Files past 300 lines, each with the reason why it is not two."""


def length(path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_longer_than_the_limit() -> None:
    long = {name_of(path): n for path in sources(*FOLDERS, "tests") if (n := length(path)) > LINES_HARD}
    assert long == {}


def test_a_source_file_past_300_lines_says_why() -> None:
    long = {name_of(path): n for path in sources() if (n := length(path)) > LINES}
    assert {name: n for name, n in long.items() if name not in LONGER} == {}
    assert set(LONGER) <= set(long), "the list of reasons names a file that is short"


def test_functions_fit_on_a_screen() -> None:
    long = {f"{name_of(path)}:{name}": n for path in sources() for name, n in functions(path) if n > FUNCTION_LINES}
    assert long == {}


def test_folders_hold_few_files() -> None:
    counts = Counter(path.parent for path in sources(*FOLDERS, "tests") if path.name != "__init__.py")
    full = {name_of(folder): n for folder, n in counts.items() if n > FILES.get(name_of(folder), FILES_DEFAULT)}
    assert full == {}


def test_no_folder_is_empty() -> None:
    parents = {path.parent for path in sources()}
    bare = [
        name_of(folder)
        for folder in parents
        if not any(path.name != "__init__.py" or path.read_text().count("\n") > 1 for path in folder.rglob("*.py"))
    ]
    assert bare == []


def test_names_say_what_is_inside() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common|v\d+)($|_)")
    assert [name_of(path) for path in sources(*FOLDERS, "tests") if vague.search(path.stem)] == []


def test_the_package_is_the_folders_themselves() -> None:
    for folder in FOLDERS:
        link = ROOT / ".pkg" / "spendbrake" / folder
        assert link.is_symlink(), folder
        assert link.resolve() == ROOT / folder


def test_every_top_level_folder_has_a_page_about_itself() -> None:
    for folder in (*FOLDERS, "tests"):
        page = ROOT / folder / "README.md"
        assert page.is_file(), folder
        assert 5 <= length(page) <= 80, f"{folder}/README.md is one screen"


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|(?<![\w.])/(?:work|Users)/")
    found = [
        f"{name}:{number}"
        for name in tracked()
        if (ROOT / name).suffix in {".py", ".md", ".yml", ".yaml", ".toml", ".lua", ".avsc"} and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if later.search(line) and "later = re.compile" not in line
    ]
    assert found == []


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return listed.stdout.splitlines()
