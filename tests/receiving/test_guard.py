"""Under attack from his own address a legitimate sender is served within 5 s, and the process stays small."""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.dcmtk import storescu
from tests.peers.waiting import wait_until
from tests.receiving import raw
from tests.receiving.attacks import ATTACKS, all_at_once, wait_for_effect
from tests.receiving.raw import ABORT, ASSOCIATE_AC, DATA, RELEASE_RP, RawSender, pdu, pdv, store_command
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.reception import Reception
from tests.receiving.samples import ct, encoded, saved

# The attacks take all that a machine has, and how quickly one is served meanwhile is what is measured.
pytestmark = pytest.mark.alone
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


def under(name: str, node: ReceiveProcess, folder: Path, times: int) -> None:
    """Begin the attack, send as a legitimate sender, judge both."""
    serve_legitimate(node, folder, 1)
    wait_until(lambda: descriptors(node) < 60, timeout_s=15, what="the connections of the attack before to be gone")
    node.forget_peak()
    with ATTACKS.get(name, all_at_once)(node.port):
        wait_for_effect(1.0)
        took = serve_legitimate(node, folder, times)
    print(f"{name}: served within {max(took):.2f} s, peak {node.peak_mb():.0f} MB, {threads(node)} threads")
    assert max(took) < SERVED_WITHIN_S
    assert node.peak_mb() < MOST_MB


@pytest.mark.parametrize("name", [*ATTACKS, "all_at_once"])
def test_a_legitimate_sender_is_served_under(name: str, node: ReceiveProcess, tmp_path: Path) -> None:
    under(name, node, tmp_path, 1)


@pytest.mark.soak
@pytest.mark.parametrize("name", [*ATTACKS, "all_at_once"])
def test_a_legitimate_sender_is_served_again_and_again_under(name: str, node: ReceiveProcess, tmp_path: Path) -> None:
    under(name, node, tmp_path, 40)


def test_who_is_closed_over_the_cap_after_a_pdu_header_sees_an_abort(node: ReceiveProcess) -> None:
    with RawSender(node.port) as half:
        half.send(raw.associate_rq()[:50])
        assert half.receive() == (ABORT, bytes([0, 0, 2, 0]))  # at the deadline; source: service provider (PS3.8 9.3.8)


def test_a_full_disk_is_said_for_each_object_without_keeping_it_and_the_same_sender_goes_on_when_there_is_space(
    make_reception: Callable[..., Reception],
) -> None:
    reception = make_reception(reserve_bytes=1 << 60)
    image = ct()
    command = pdu(DATA, pdv(store_command(image.SOPInstanceUID), command=True, last=True))
    before = used(reception.root)
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(command)
        for _ in range(200):
            sender.send(pdu(DATA, pdv(bytes(100_000), command=False, last=False)))  # 20 MB, drained
        assert used(reception.root) - before < 1 << 20
        sender.send(pdu(DATA, pdv(b"", command=False, last=True)))
        assert sender.receive_status() == 0xA700
        reception.store.reserve_bytes = 0
        sender.send(command + pdu(DATA, pdv(encoded(image), command=False, last=True)))
        assert sender.receive_status() == 0
        assert sender.release() == RELEASE_RP
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


def used(folder: Path) -> int:
    """Bytes of all files, empty ones that were made ahead included."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
