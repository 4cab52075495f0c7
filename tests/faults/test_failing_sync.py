"""A disk that takes the bytes and then says that it could not keep them: no Success, nothing half kept, and on it goes."""

from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.storage import KnownFile, Store, fsck
from tests.faults.shims import compiled
from tests.receiving.load import Bookkeeping, Images, read_back, send_one
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP, RawSender
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("failing", ["/data/in", "dicomnode.db-wal"], ids=["file_or_folder", "row"])
def test_a_sync_that_fails_is_no_success_and_leaves_nothing(tmp_path: Path, order: str, failing: str) -> None:
    control = tmp_path / "control"
    node = ReceiveProcess(
        tmp_path / "node",
        settings={"storage": {"order": order}},
        environment={
            "LD_PRELOAD": str(compiled("failing_sync", tmp_path)),
            "FAILING_SYNC_OF": str(control),
        },
    )
    book, images, store = Bookkeeping(), Images(), Store(node.data_dir, reserve_bytes=0)
    with node, closing(node.registry()) as registry:
        with RawSender(node.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            assert send_one(sender, images, book) == 0
            control.write_text(failing)
            failed = [send_one(sender, images, book) for _ in range(5)]
            assert all(failed), "0x0000 although a sync failed"
            control.unlink()
            assert [send_one(sender, images, book) for _ in range(3)] == [0] * 3
            assert sender.release() == RELEASE_RP
        refused = set(book.data_sets) - set(book.acknowledged)
        assert [uid for uid in refused if registry.instance(uid) is not None] == [], "rows of what was not acknowledged"
        assert list(read_back(registry, store, book.acknowledged)) == []
        report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
        assert report.ok, report
        assert '"level": "error"' in node.output()
        # And the same after a crash: what failed does not come back.
        node.kill()
        node.start()
        assert list(read_back(registry, store, book.acknowledged)) == []
        assert fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True).ok
