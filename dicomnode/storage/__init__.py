"""Bytes at rest.

Enters: the bytes of instances and results. Leaves: relative paths, digests, free space, what `fsck` found, what a crash left.
Promises: what `InstanceWriter.durable` waited for survives a power cut, file and folder entry alike; every file has a name of
our own, nothing of the patient and no UID, in a folder of at most 256; an empty file there is nobody's (`is_pool_file`), one
that its group may not read is not yet settled; below the reserve nothing is begun. Knows no rows and no network.
"""

from dicomnode.storage.fsck import FsckReport, KnownFile, fsck
from dicomnode.storage.part10 import FileMeta, data_set_offset, sop_instance_uid_in
from dicomnode.storage.pool import LeftOpen, is_pool_file, is_settled
from dicomnode.storage.reserve import Reserve, ReserveChange, reserve_size
from dicomnode.storage.store import Store
from dicomnode.storage.writer import InstanceWriter, StoredBytes

__all__ = [
    "FileMeta",
    "FsckReport",
    "InstanceWriter",
    "KnownFile",
    "LeftOpen",
    "Reserve",
    "ReserveChange",
    "Store",
    "StoredBytes",
    "data_set_offset",
    "fsck",
    "is_pool_file",
    "is_settled",
    "reserve_size",
    "sop_instance_uid_in",
]
