"""Bytes at rest.

Enters: the bytes of instances and results. Leaves: relative paths, digests, free space, what `fsck` found. Promises: what
`Store.write_instance` returned survives a power cut, file and folder entry alike; nothing half written is ever seen under a
final name; names and folders hold hashes only, nothing of the patient and no UID; below the reserve nothing is written. Knows
no rows and no network.
"""

from dicomnode.storage.fsck import FsckReport, KnownFile, fsck
from dicomnode.storage.part10 import FileMeta, data_set_offset
from dicomnode.storage.store import Store, StoredBytes

__all__ = ["FileMeta", "FsckReport", "KnownFile", "Store", "StoredBytes", "data_set_offset", "fsck"]
