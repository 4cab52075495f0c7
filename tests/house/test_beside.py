"""Processes that run the tests beside each other do not meet, and lose nothing when one of them dies."""

import os
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
