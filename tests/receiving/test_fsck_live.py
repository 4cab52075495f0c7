"""fsck beside a node that receives: nothing in flight is an orphan, nothing is mended away under a sender's hands."""

import threading
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.storage import KnownFile, Store, fsck
from tests.peers.waiting import wait_until
from tests.receiving.load import Bookkeeping, Senders, read_back
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")


@pytest.mark.parametrize("order", ORDERS)
def test_fsck_again_and_again_under_load_finds_nothing(tmp_path: Path, order: str) -> None:
    """Small and large objects: rows committed before, beside and after their bytes, files taken from the pool, refills."""
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}})
    small, large = Bookkeeping(), Bookkeeping()
    with node, closing(node.registry()) as registry:
        store, over = Store(node.data_dir, reserve_bytes=0), threading.Event()
        reports = []

        def look() -> None:
            while not over.is_set():
                known = (KnownFile(*one) for one in registry.known_files())
                reports.append(fsck(store, known, verify_digests=True))

        looking = threading.Thread(target=look)
        with Senders(node.port, small, count=2), Senders(node.port, large, count=2, pixel_bytes=1 << 20):
            looking.start()
            wait_until(lambda: len(small.acknowledged) > 300 and len(large.acknowledged) > 20, timeout_s=60, what="images")
            over.set()
            looking.join(30)
        assert len(reports) >= 2
        assert [report for report in reports if not report.ok] == []
        assert list(read_back(registry, store, small.acknowledged | large.acknowledged)) == []
