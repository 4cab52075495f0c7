"""Peers whose network is gone: no FIN, no reset, no acknowledgement ever comes from them."""

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicomnode.bench.processes import MeasurementFailed, small_mtu
from tests.peers.waiting import wait_until
from tests.receiving.raw import ASSOCIATE_AC, DATA, RELEASE_RP, RawSender, pdu, pdv, store_command
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ct, encoded

_CLONE_NEWNET = 0x40000000  # setns(2); Python has os.setns from 3.12 on


@pytest.fixture
def network() -> Iterator[Sequence[str]]:
    """Words before a command that run it in a network of its own, which can be switched off."""
    namespace = small_mtu()
    try:
        words = namespace.__enter__()
    except MeasurementFailed as error:
        pytest.skip(f"{error.what}: half-open connections were not tried")
    yield words
    namespace.__exit__(None, None, None)


def switch(network: Sequence[str], how: str) -> None:
    subprocess.run([*network, "ip", "link", "set", "lo", how], check=True)


def enter(network: Sequence[str]) -> None:
    """This thread makes its sockets in there from now on."""
    with Path(f"/proc/{network[2]}/ns/net").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def descriptors(node: ReceiveProcess) -> int:
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))


def message() -> bytes:
    image = ct()
    command = pdu(DATA, pdv(store_command(image.SOPInstanceUID), command=True, last=True))
    return command + pdu(DATA, pdv(encoded(image), command=False, last=True))


def at_rest_and_in_an_object(port: int, count: int) -> list[RawSender]:
    """So many of each."""
    senders = [RawSender(port) for _ in range(2 * count)]
    for number, sender in enumerate(senders):
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message())
        assert sender.receive_status() == 0
        sender.send(b"" if number < count else message()[:-500])
    return senders


def test_peers_that_lost_their_network_anywhere_are_dropped_and_cost_nobody_a_place(
    tmp_path: Path, network: Sequence[str]
) -> None:
    """Between two messages and in an object: after the silence that is allowed the node is as it was."""
    settings = {"dicom": {"network_timeout_s": 2.0, "max_associations": 16}}
    with ReceiveProcess(tmp_path, settings=settings, prefix=network) as node, ThreadPoolExecutor(1) as inside:
        inside.submit(enter, network).result()

        def one_image() -> None:
            with RawSender(node.port) as sender:
                assert sender.associate() == ASSOCIATE_AC
                sender.send(message())
                assert sender.receive_status() == 0
                assert sender.release() == RELEASE_RP

        inside.submit(one_image).result()
        before = descriptors(node)
        with ExitStack() as stack:
            for sender in inside.submit(at_rest_and_in_an_object, node.port, 6).result():
                stack.enter_context(sender)
            assert descriptors(node) >= before + 12
            switch(network, "down")
            wait_until(lambda: descriptors(node) <= before + 4, timeout_s=20, what="the node to drop them")
            switch(network, "up")
        inside.submit(one_image).result()
