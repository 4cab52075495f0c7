"""What crashes leave behind, looked for without stopping the node."""

import time

from dicomnode.domain.clock import utc_now
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
    """How many instances that arrived after the last orderly stop, or look, are not on disk as they were acknowledged.

    After an orderly stop there is nothing to look at, and what was found whole is not looked at again. Bytes are durable before
    their row is, so more than 0 means that the disk or somebody else lost them; their senders' copies are taken again, and
    `dicomnode fsck` names them.
    """
    began = utc_now()
    known = (KnownFile(*one) for one in registry.files_since(registry.verified_until()))
    report = fsck(store, known, verify_digests=True, find_orphans=False)
    if report.ok:
        registry.mark_verified(began)
    return len(report.missing) + len(report.corrupt)
