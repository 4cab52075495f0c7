"""Under attack from his own address a legitimate sender is served within 5 s, and the process stays small."""

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.dcmtk import storescu
from tests.peers.waiting import wait_until
from tests.receiving.attacks import ATTACKS, all_at_once, wait_for_effect
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ct, saved

SERVED_WITHIN_S = 5.0
MOST_MB = 256.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiveProcess]:
    """One real receive process for all attacks: what one leaves behind, the next would meet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # ours: the attackers open thousands
    with ReceiveProcess(tmp_path_factory.mktemp("guard")) as one:
        yield one
        said = one.output()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "an association ended by an error" not in said, said[-3000:]


def threads(node: ReceiveProcess) -> int:
    return len(list(Path(f"/proc/{node.pid}/task").iterdir()))


def descriptors(node: ReceiveProcess) -> int:
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))


def serve_legitimate(node: ReceiveProcess, folder: Path, times: int) -> list[float]:
    """DCMTK's storescu sends a new image on a new association each time; how long each took."""
    took = []
    for number in range(times):
        path = saved(ct(InstanceNumber=number), folder)
        began = time.monotonic()
        result = storescu(node.port, path, timeout_s=30)
        took.append(time.monotonic() - began)
        assert result.ok, f"after {took[-1]:.1f} s: {result.output[-600:]}"
        assert "0x0000" in result.output or "Received Store Response (Success)" in result.output, result.output[-600:]
    return took


@pytest.mark.parametrize("name", [*ATTACKS, "all_at_once"])
def test_a_legitimate_sender_is_served_under(name: str, node: ReceiveProcess, tmp_path: Path) -> None:
    serve_legitimate(node, tmp_path, 1)
    wait_until(lambda: descriptors(node) < 60, timeout_s=15, what="the connections of the attack before to be gone")
    node.forget_peak()
    attack = ATTACKS.get(name, all_at_once)
    with attack(node.port):
        wait_for_effect(1.0)
        took = serve_legitimate(node, tmp_path, 3)
    print(f"{name}: served within {max(took):.2f} s, peak {node.peak_mb():.0f} MB, {threads(node)} threads")
    assert max(took) < SERVED_WITHIN_S
    assert node.peak_mb() < MOST_MB
