"""Processes that run the tests beside each other do not meet, and lose nothing when one of them dies."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import beside

ROOT = Path(__file__).parents[2]
ASK = """
import os
from tests.peers.waiting import free_port
print(os.environ.get("OMP_NUM_THREADS"), *(free_port() for _ in range(100)))
"""

CONFTEST = """
from tests.beside import ByFile, longest_first

def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)

def pytest_collection_modifyitems(items):
    items[:] = longest_first(items)
"""


def asked(worker: str) -> tuple[str, set[int]]:
    """How many threads a process computes with, and a hundred ports that it is given."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    said = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**environment, "PYTEST_XDIST_WORKER": worker},
        capture_output=True,
        check=True,
    ).stdout.split()
    return said[0].decode(), set(map(int, said[1:]))


def test_each_process_has_one_thread_and_ports_of_its_own_below_those_of_outgoing_connections() -> None:
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first, second = asked("gw0"), asked("gw1")
    assert (first[0], second[0]) == ("1", "1")
    assert len(first[1]) == len(second[1]) == 100
    assert not first[1] & second[1]
    assert max(first[1] | second[1]) < outgoing


def test_what_is_said_to_take_long_is_there() -> None:
    assert [place for place in (*beside.TOGETHER, *beside.LONGEST_FIRST) if not (ROOT / place).exists()] == []


def test_the_longest_files_come_first_whole_and_what_belongs_together_to_one_process(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for file, tests in {"archive/test_many": 9, "faults/test_one": 2, "faults/test_two": 2, "roles/test_three": 3}.items():
        path = tmp_path / "tests" / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(f"def test_{number}(): pass" for number in range(tests)))
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", tmp_path, "-p", "no:cacheprovider", "-n", "2"]
    done = subprocess.run([*command, "-v", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    ran = re.findall(r"\[(gw\d)\].*PASSED .*tests/(\w+)/(\w+)\.py", done.stdout)
    assert len(ran) == 16, done.stdout
    assert len({(file, worker) for worker, _, file in ran}) == 4  # whole files
    assert len({worker for worker, folder, _ in ran if folder == "faults"}) == 1
    began = list(dict.fromkeys(folder for _, folder, _ in ran))
    assert began.index("archive") == 2, began  # though it has the most tests
