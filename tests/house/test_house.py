"""The house stays as it was drawn: tools are clean, rooms are small, nothing names the place where it was built."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 60
MAX_FILE_BYTES = 10 * 1024 * 1024


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "."], ["ruff", "check", "."], ["mypy"], ["lint-imports"]],
    ids=["format", "lint", "types", "import-rules"],
)
def test_the_tools_of_make_check_find_nothing(command: list[str]) -> None:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_source_file_is_a_drawer_for_everything() -> None:
    crowded = {
        str(path.relative_to(ROOT)): lines
        for path in tracked_files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "dicomnode")
        if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert not crowded


def test_no_function_needs_scrolling() -> None:
    long = {}
    for path in (ROOT / "dicomnode").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > MAX_FUNCTION_LINES:
                long[f"{path.relative_to(ROOT)}:{node.name}"] = (node.end_lineno or 0) - node.lineno
    assert not long


def test_every_room_says_what_enters_and_what_leaves() -> None:
    silent = [
        room.name
        for room in (ROOT / "dicomnode").iterdir()
        if room.is_dir() and (room / "__init__.py").exists()
        if "nters" not in (ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "")
    ]
    assert not silent


def test_no_big_binaries_are_kept() -> None:
    assert not [path for path in tracked_files() if path.stat().st_size > MAX_FILE_BYTES]


def test_no_file_names_the_place_where_it_was_built() -> None:
    # Put together from pieces, so that this file does not trip over itself.
    pieces = ["/work" + "/(main|shared)", "farm" + "-(studio|bench)", r"\." + "library/", "pypi" + "-more"]
    forbidden = re.compile("|".join(pieces))
    named = []
    for path in tracked_files():
        if path.suffix in {".png", ".safetensors", ".dcm", ".zip"}:
            continue
        if forbidden.search(path.read_text(errors="replace")):
            named.append(str(path.relative_to(ROOT)))
    assert not named


def test_the_lock_holds_hashes_and_no_torch() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    requirements = re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==", lock)
    assert len(requirements) > 50
    assert not [name for name in requirements if name == "torch" or name.startswith(("nvidia-", "cuda-", "triton"))]
    assert all("--hash=sha256:" in block for block in re.split(r"(?m)^(?=[a-z0-9])", lock)[1:])


def test_the_makefile_and_the_project_pin_the_same_torch() -> None:
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()
    assert '"torch==2.13.0"' in (ROOT / "pyproject.toml").read_text()


def test_what_the_pages_say_of_make_test_is_what_it_does() -> None:
    recipe = re.search(r"(?ms)^test: install\n(.*?)\n\n", (ROOT / "Makefile").read_text())
    assert recipe is not None
    limits = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    page, readme = ((ROOT / name).read_text() for name in ("docs/contributing.md", "README.md"))
    assert re.search(r"(?m)^WORKERS \?= 2$", (ROOT / "Makefile").read_text())
    assert '-n $(WORKERS) -m "not alone"' in recipe[1]  # "two processes", and what is alone after them
    assert recipe[1].index('"not alone"') < recipe[1].index("-m alone")
    assert "Two processes run the tests" in page
    assert f"A test has {limits['timeout']} s with its fixtures" in page
    assert {line.partition(":")[0] for line in limits["markers"]} == {"alone", "soak", "fuzz"}
    bound = re.search(r"under (\d+) minutes on two cores", page)
    assert bound is not None
    assert f"under {bound[1]} minutes on two cores" in readme
    assert "-ra" in limits["addopts"]  # what is skipped is said
    assert "--durations=15" in limits["addopts"]
