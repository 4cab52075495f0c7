"""What the worker's process sets itself: seen from inside such a process, in Python, in C and in a child."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.roles import confinement
from dicomnode.settings import Settings

PROGRAM = """
import ctypes, json, os, socket, subprocess, sys
import numpy  # starts threads of its own
from dicomnode.roles import confinement

port, by_network = int(sys.argv[1]), sys.argv[2] == "True"
confinement.limit_memory(1 << 30)
by_kernel = confinement.refuse_network(database_by_network=by_network)

def attempt(action):
    try:
        action()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"

def in_c():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0) < 0:
        raise OSError(ctypes.get_errno(), "socket")

def in_a_child():
    code = "import socket; socket.create_connection(('127.0.0.1', %d))" % port
    if subprocess.run([sys.executable, "-c", code], capture_output=True).returncode:
        raise OSError("refused")

pair = socket.socketpair()
told = {
    "by kernel": by_kernel,
    "python": attempt(lambda: socket.create_connection(("127.0.0.1", port))),
    "names": attempt(lambda: socket.getaddrinfo("localhost", port)),
    "c": attempt(in_c),
    "child": attempt(in_a_child),
    "unix": attempt(lambda: pair[0].send(b"1")),
    "much memory": attempt(lambda: bytearray(2 << 30)),
    "some memory": attempt(lambda: bytearray(64 << 20)),
}
print(json.dumps(told))
"""


def confined(*, by_network: bool) -> dict[str, object]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, "-c", PROGRAM, str(listener.getsockname()[1]), str(by_network)]
        answer = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    told: dict[str, object] = json.loads(answer.stdout)
    return told


def test_the_worker_has_no_way_to_the_network_and_no_more_memory_than_it_was_given() -> None:
    assert confined(by_network=False) == {
        "by kernel": True,
        "python": "PermissionError",
        "names": "PermissionError",
        "c": "PermissionError",
        "child": "OSError",
        "unix": "done",
        "much memory": "MemoryError",
        "some memory": "done",
    }


def test_with_the_database_on_a_server_python_still_opens_no_connection() -> None:
    told = confined(by_network=True)
    assert (told["by kernel"], told["python"], told["names"]) == (False, "PermissionError", "PermissionError")


@pytest.mark.parametrize(
    ("url", "by_network"),
    [
        ("sqlite:////var/lib/dicomnode/dicomnode.db", False),
        ("postgresql+psycopg://node:secret@db.example/dicomnode", True),
        ("postgresql+psycopg:///dicomnode?host=/var/run/postgresql", False),
        ("postgresql+psycopg:///dicomnode?host=db.example", True),
        ("postgresql+psycopg:///dicomnode", False),
    ],
)
def test_which_databases_are_called_by_network(url: str, by_network: bool) -> None:
    assert confinement.reached_by_network(url) is by_network


def test_the_worker_is_given_part_of_what_there_is() -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < confinement.memory_given() <= 0.8 * machine
    assert Settings().work.memory_mb == 0


def test_a_control_group_says_how_much_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        Path("/proc/self/cgroup"): ["0::/system.slice/dicomnode.service"],
        Path("/sys/fs/cgroup/system.slice/dicomnode.service/memory.max"): ["1073741824"],
        Path("/sys/fs/cgroup/system.slice/memory.max"): ["max"],
    }
    monkeypatch.setattr(confinement, "_lines", lambda path: files.get(path, []))
    assert confinement.memory_given() == int(0.8 * (1 << 30))
