"""What crashes leave behind, looked for without stopping the node."""

import time

from dicomnode.registry import Registry
from dicomnode.storage import KnownFile, Store, fsck

SPOOL = "spool"
# Older than any attempt at a job: what no row names by then, nobody works on any more.
LEFT_AFTER_S = 24 * 3600.0


def sweep_spool(store: Store, registry: Registry, *, older_than_s: float = LEFT_AFTER_S) -> int:
    """Remove files of broken-off attempts from the spool; how many. Results that a row names stay, sent or not."""
    before = time.time() - older_than_s
    old = [path for path in (store.root / SPOOL).rglob("*") if path.is_file() and path.stat().st_mtime < before]
    if not old:
        return 0
    known = {store.absolute(path) for path, _, _ in registry.known_files()}
    unclaimed = [path for path in old if path not in known]
    for path in unclaimed:
        path.unlink(missing_ok=True)
    return len(unclaimed)


def damaged_since_clean_stop(store: Store, registry: Registry) -> int:
    """How many instances that arrived after the last orderly stop are not on disk as they were acknowledged.

    After an orderly stop there is nothing to look at. Bytes are durable before their row is, so more than 0 means that the disk
    or somebody else lost them; their senders' copies are taken again, and `dicomnode fsck` names them.
    """
    newer = registry.instances_since(registry.last_clean_stop())
    known = (KnownFile(one.path, one.size_bytes, one.sha256) for one in newer)
    report = fsck(store, known, verify_digests=True, find_orphans=False)
    return len(report.missing) + len(report.corrupt)
