"""What hangs costs one test: the run says where, ends the fixtures and goes on, in one process and in several."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The house's own plug-ins, impatient; not its settings, whose limits are minutes.
CONFTEST = """
import sys
from tests.beside import ByFile

pytest_plugins = ("tests.hanging",)

def pytest_configure():
    hanging = sys.modules["tests.hanging"]
    hanging.AGAIN_S, hanging.LAST_RESORT_S = 1.0, LAST

def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)
"""
TESTS = """
import threading
import pytest

@pytest.fixture
def slow_to_end():
    yield
    print("the fixture ended")
    threading.Event().wait()

def test_first(): pass
def test_waits_for_ever(): threading.Event().wait()
def test_between(): pass
def test_fails_and_then_its_fixture_hangs(slow_to_end): assert False
def test_last(): pass
"""
NEVER_BACK_IN_PYTHON = """
import ctypes
def test_before(): pass
def test_holds_the_interpreter(): ctypes.PyDLL(None).sleep(3600)
def test_after(): pass
"""


def run(folder: Path, text: str, *words: str, last_resort_s: float = 60.0) -> str:
    """What pytest says of a file with these tests, each of which may take two seconds."""
    (folder / "conftest.py").write_text(CONFTEST.replace("1.0, LAST", f"1.0, {last_resort_s}"))
    (folder / "test_them.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", folder, "-p", "no:cacheprovider", "--timeout=2"]
    done = subprocess.run(
        [*map(str, command), "-rA", *words, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["one process", "of several"])
def test_a_test_or_a_fixture_that_hangs_fails_and_the_others_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = run(tmp_path, TESTS, *words)
    assert "2 failed, 3 passed, 1 error" in said, said
    assert "hangs: not over after 2 s" in said
    assert "--- MainThread" in said  # the stacks of all threads
    assert 'test_them.py", line 12, in test_waits_for_ever' in said


def test_what_never_comes_back_to_python_costs_its_process_and_one_test(tmp_path: Path) -> None:
    said = run(tmp_path, NEVER_BACK_IN_PYTHON, "-n", "1", last_resort_s=1.0)
    assert "1 failed, 2 passed" in said, said
    assert "crashed while running" in said
    assert 'test_them.py", line 4 in test_holds_the_interpreter' in said  # where, of the process that had to go
