"""What a crash left in doubt, settled before anything is accepted (DESIGN section 5).

Bytes without a row were never acknowledged, nor was a row whose bytes are not all there; both go, and their senders send them
again. Only folders that the store marked as open are looked at: in all others every row was durable with its bytes.
What was certainly acknowledged never goes, whoever damaged it: its row stays and is reported; bytes are put aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from dicomnode.receiving.ledger import InstanceLedger
from dicomnode.registry import StoredFile
from dicomnode.storage import LeftOpen, Store, is_settled, sop_instance_uid_in

# The clock may have been set back since the folder was opened. If by more: such rows are not looked at here, `fsck` names them.
_CLOCK_SET_BACK = timedelta(minutes=5)
# Of what was promised, in one folder; the rest is looked at by size, and by digest beside the running node (`sweep`).
_MOST_READ_BYTES = 1 << 30

_log = structlog.get_logger("receiving")


@dataclass(frozen=True, slots=True)
class Recovered:
    """unnamed: files without a row that were removed. incomplete: rows without their bytes that were removed.

    aside: files that once had a row and were put aside. damaged: acknowledged instances whose bytes are not as they were.
    """

    unnamed: int = 0
    incomplete: int = 0
    aside: int = 0
    damaged: int = 0


def recover(store: Store, ledger: InstanceLedger) -> Recovered:
    """Settle and log what an earlier run left. May be broken off and repeated. Raises what store and ledger raise."""
    unnamed, incomplete, aside, damaged = store.clear_incoming(), 0, 0, 0
    for left in store.left_open():
        lost, hurt = _rows_without_bytes(store, ledger, left)
        strangers = _files_without_row(store, ledger, left)
        settled = [path for path in strangers if is_settled(store.absolute(path))]
        ledger.forget_instances([row.sop_instance_uid for row in lost])
        for path in settled:
            store.quarantine(path, "no_row")
        for path in (*(path for path in strangers if path not in settled), *(row.path for row in lost)):
            store.discard(path)
        store.close_left_open(left)
        unnamed, incomplete = unnamed + len(strangers) - len(settled), incomplete + len(lost)
        aside, damaged = aside + len(settled), damaged + len(hurt)
    found = Recovered(unnamed, incomplete, aside, damaged)
    if unnamed or incomplete:
        _log.warning("what a crash left half done was removed", count=unnamed + incomplete)
    if aside:
        _log.error("stored files are unknown to the database and were put aside in quarantine/no_row", count=aside)
    if damaged:
        _log.error("stored instances are missing or damaged: run dicomnode fsck", instances=damaged)
    return found


def _rows_without_bytes(store: Store, ledger: InstanceLedger, left: LeftOpen) -> tuple[list[StoredFile], list[StoredFile]]:
    """Those that nobody was promised, and those that somebody was."""
    since = datetime.fromtimestamp(left.opened_at, UTC) - _CLOCK_SET_BACK
    lost: list[StoredFile] = []
    hurt: list[StoredFile] = []
    may_be_read = _MOST_READ_BYTES
    for row in ledger.files_in(left.relative, since):
        path = store.absolute(row.path)
        promised = row.answered or (path.is_file() and is_settled(path))
        if promised and row.size_bytes > may_be_read:
            whole = path.is_file() and path.stat().st_size == row.size_bytes
        else:
            may_be_read -= row.size_bytes if promised else 0
            whole = store.verify(row.path, row.size_bytes, row.sha256)
        if not whole:
            (hurt if promised else lost).append(row)
    return lost, hurt


def _files_without_row(store: Store, ledger: InstanceLedger, left: LeftOpen) -> Sequence[Path]:
    """Asked by the UID in the file's head, whatever the clocks said: an acknowledged file has a head."""
    uids = {path: sop_instance_uid_in(store.absolute(path)) for path in left.files}
    named = {row.sop_instance_uid: row.path for row in ledger.files_of([uid for uid in uids.values() if uid is not None])}
    return [path for path, uid in uids.items() if uid is None or named.get(uid) != path]
