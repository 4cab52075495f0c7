"""The node as a tree of processes: ready, crashed, drained, reloaded, killed; and what keeps it from starting."""

import json
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.cli.main import run
from dicomnode.registry import Registry
from tests.peers.dcmtk import echoscu
from tests.peers.node import Node, chest_route, modality_peer
from tests.peers.waiting import free_port, listens, wait_until

# Without the worker a node is ready in a few seconds: torch is what takes long.
LIGHT = ("receive", "deliver", "sweep")
PIPELINES = Path(__file__).parents[1] / "pipelines"
# A start that should be refused and is not would run until it is told to end.
refused_within_a_minute = pytest.mark.timeout(60)


def pids_of(node: Node) -> dict[str, int]:
    return {role["name"]: role["pid"] for role in node.status()["roles"]}


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ended(one: Node, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and error line of a start that fails before any role runs: inside the test process, that is quicker."""
    capfd.readouterr()
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        code = run(["run", *words, "--config", str(one.config)])
    finally:  # it should not have started but did, and was interrupted
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        roles = [json.loads(path.read_text()) for path in (one.data_dir / "run").glob("*.json")]
        for role in roles:
            if role["supervisor_pid"] == os.getpid() and role["pid"] is not None:
                os.kill(role["pid"], signal.SIGKILL)
    shown = capfd.readouterr().err.splitlines()
    assert "Traceback" not in shown
    assert shown[-1].startswith("error: ")
    assert " — " in shown[-1]
    return code, shown[-1]


@pytest.fixture(scope="module")
def light_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A running node without worker; each test leaves it ready."""
    one = Node(tmp_path_factory.mktemp("light") / "node")
    one.start(*LIGHT)
    yield one
    one.kill()


def test_a_crashed_role_is_started_again(light_node: Node) -> None:
    before = pids_of(light_node)
    os.kill(before["receive"], signal.SIGSEGV)
    wait_until(lambda: pids_of(light_node)["receive"] not in {before["receive"], None}, timeout_s=30, what="another receiver")
    wait_until(lambda: light_node.status()["ready"], timeout_s=30, what="the node to be ready again")
    after = pids_of(light_node)
    assert (after["deliver"], after["sweep"]) == (before["deliver"], before["sweep"])
    assert echoscu(light_node.port).ok
    assert "SIGSEGV" in light_node.output()


def test_a_second_node_on_the_same_data_is_refused(light_node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    code, said = ended(light_node, capfd, "--role", "sweep")
    assert code == 2
    assert "is already running" in said
    assert light_node.status()["ready"] is True


def test_sighup_reloads_settings_and_wrong_ones_change_nothing(light_node: Node) -> None:
    text, port = light_node.config.read_text(), free_port()
    light_node.config.write_text(text.replace(f"port = {light_node.port}", "port = 0"))
    os.kill(light_node.pid, signal.SIGHUP)
    wait_until(lambda: "settings were not reloaded" in light_node.output(), timeout_s=10, what="the complaint")
    assert echoscu(light_node.port).ok
    light_node.config.write_text(text.replace(f"port = {light_node.port}", f"port = {port}"))
    os.kill(light_node.pid, signal.SIGHUP)
    wait_until(lambda: listens(port) and light_node.status()["ready"], timeout_s=60, what="the new port")
    assert echoscu(port).ok
    assert not listens(light_node.port)
    assert light_node.running


def test_roles_share_the_supervisors_group_and_die_with_it(node: Callable[..., Node]) -> None:
    one = node("node")
    one.start("receive", "sweep")
    pids = pids_of(one)
    assert {os.getpgid(pid) for pid in pids.values()} == {os.getpgid(one.pid)}
    one.kill_supervisor()
    wait_until(lambda: not any(runs(pid) for pid in pids.values()), timeout_s=5, what="the roles to die")
    # A process shows as ended a moment before its last thread lets go of the socket.
    wait_until(lambda: not listens(one.port), timeout_s=5, what="the port to be free")
    status = one.status()
    assert status["ready"] is False
    assert {role["state"] for role in status["roles"]} == {"stopped"}


def test_a_port_in_use_ends_the_start_and_says_what_to_do(node: Callable[..., Node]) -> None:
    one = node("node")
    with socket.socket() as other:
        other.bind(("127.0.0.1", one.port))
        other.listen()
        answer = one.command("run", "--role", "receive", timeout_s=60)
    code, said = answer.returncode, answer.stderr
    assert code == 2
    assert f"error: DICOM port {one.port} on 127.0.0.1 is in use — stop the program" in said


@refused_within_a_minute
def test_a_dead_database_ends_the_start_with_3(
    node: Callable[..., Node], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.db").mkdir()
    one = node("node", settings={"database": {"url": f"sqlite:///{tmp_path / 'rows.db'}"}})
    assert ended(one, capfd)[0] == 3


@refused_within_a_minute
def test_an_older_database_names_the_upgrade(node: Callable[..., Node], capfd: pytest.CaptureFixture[str]) -> None:
    one = node("node")
    one.data_dir.mkdir()
    registry = Registry(f"sqlite:///{one.data_dir / 'dicomnode.db'}")
    registry.prepare()
    registry.close()
    with sqlite3.connect(one.data_dir / "dicomnode.db") as rows:
        rows.execute("UPDATE alembic_version SET version_num = '0000'")
    code, said = ended(one, capfd)
    assert code == 2
    assert "revision 0000" in said


@refused_within_a_minute
@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({}, ["--role", "web"], "role 'web' is not built yet"),
        ({}, ["--role", "recieve"], "there is no role 'recieve' — the nearest one is 'receive'"),
        (
            {"routes": [chest_route(pipeline="chest_cd", send_to=[])], "pipelines": [PIPELINES]},
            [],
            "names pipeline 'chest_cd', which does not exist",
        ),
        ({"settings": {"node": {"data_dir": "/proc/dicomnode"}}}, [], "folder /proc/dicomnode cannot be made"),
        (
            {"settings": {"dicom": {"tls": {"certificate": "c", "key": "k"}}}},
            [],
            "/c cannot be read: No such file or directory — correct the path",
        ),
        ({"settings": {"dicom": {"prot": 104}}}, [], "unknown setting dicom.prot — the nearest one is dicom.port"),
    ],
)
def test_what_cannot_run_does_not_start(
    node: Callable[..., Node], capfd: pytest.CaptureFixture[str], changes: dict[str, Any], words: list[str], said: str
) -> None:
    one = node("node", peers=[modality_peer("DCMSEND")], **changes)
    code, line = ended(one, capfd, *words)
    assert code == 2
    assert said in line


@refused_within_a_minute
def test_without_a_settings_file_nothing_starts(node: Callable[..., Node], capfd: pytest.CaptureFixture[str]) -> None:
    one = node("node")
    one.config.unlink()
    code, said = ended(one, capfd)
    assert code == 2
    assert "does not exist — write it with: dicomnode init" in said


def test_sigterm_ends_in_order_and_the_service_manager_is_told_all_along(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    one = Node(tmp_path / "node", environment={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "2000000"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        one.start_only("receive")
        said: set[str] = set()
        while not {"READY=1", "WATCHDOG=1"} <= said:
            said |= set(manager.recv(4096).decode().splitlines())
        pids = pids_of(one)
        assert one.stop() == 0
        while "STOPPING=1" not in said:
            said |= set(manager.recv(4096).decode().splitlines())
    assert not any(runs(pid) for pid in pids.values())
    assert one.status()["roles"] == []
    registry = Registry(f"sqlite:///{one.data_dir / 'dicomnode.db'}")
    assert registry.last_clean_stop() is not None
    registry.close()
