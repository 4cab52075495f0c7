"""The part of a DICOM file that is ours to write: preamble, prefix and File Meta Information (PS3.10 7.1)."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from dicomnode.domain.errors import CorruptInstance

_PREAMBLE = b"\0" * 128 + b"DICM"
_GROUP_LENGTH = struct.Struct("<HH2sHI")  # (0002,0000) UL, always the first element
_META_VERSION = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\0\1"
_LARGEST_META = 1 << 20


def _text(element: int, vr: bytes, value: str, padding: bytes) -> bytes:
    raw = value.encode("ascii", "replace")
    raw += padding * (len(raw) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(raw)) + raw


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the File Meta Information says (PS3.10 Table 7.1-1)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    implementation_class_uid: str
    implementation_version_name: str
    source_ae_title: str = ""

    def encoded(self) -> bytes:
        """Preamble, "DICM" and group 0002 in Explicit VR Little Endian; the data set follows directly."""
        before = _text(0x0002, b"UI", self.sop_class_uid, b"\0")
        instance = _text(0x0003, b"UI", self.sop_instance_uid, b"\0")
        behind = _behind(
            self.transfer_syntax_uid, self.implementation_class_uid, self.implementation_version_name, self.source_ae_title
        )
        length = len(_META_VERSION) + len(before) + len(instance) + len(behind)
        group_length = _GROUP_LENGTH.pack(0x0002, 0x0000, b"UL", 4, length)
        return b"".join((_PREAMBLE, group_length, _META_VERSION, before, instance, behind))


@lru_cache(maxsize=256)
def _behind(transfer_syntax_uid: str, implementation_class_uid: str, implementation_version_name: str, ae_title: str) -> bytes:
    """What stands behind the instance's UID, alike for all instances of one sender."""
    return (
        _text(0x0010, b"UI", transfer_syntax_uid, b"\0")
        + _text(0x0012, b"UI", implementation_class_uid, b"\0")
        + _text(0x0013, b"SH", implementation_version_name, b" ")
        + (_text(0x0016, b"AE", ae_title, b" ") if ae_title else b"")
    )


def read_head(file: BinaryIO) -> bytes:
    """Preamble to the last byte of the meta information; `file` then stands at the data set. ValueError if it is none."""
    start = file.read(len(_PREAMBLE) + _GROUP_LENGTH.size)
    if len(start) != len(_PREAMBLE) + _GROUP_LENGTH.size or start[128:132] != b"DICM":
        raise ValueError("no DICM prefix")
    group, element, vr, size, length = _GROUP_LENGTH.unpack_from(start, len(_PREAMBLE))
    if (group, element, vr, size) != (0x0002, 0x0000, b"UL", 4) or length > _LARGEST_META:
        raise ValueError("no File Meta Information group length")
    rest = file.read(length)
    if len(rest) != length:
        raise ValueError("the file ends inside its meta information")
    return start + rest


def sop_instance_uid_in(path: Path) -> str | None:
    """Media Storage SOP Instance UID (0002,0003) of a stored file, as its writer was told; None if its head is damaged."""
    try:
        with path.open("rb") as file:
            head = read_head(file)
    except (OSError, ValueError):
        return None
    position = len(_PREAMBLE) + _GROUP_LENGTH.size + len(_META_VERSION)
    while position + 8 <= len(head):  # our own writing: short lengths only behind the version
        _, element, _, length = struct.unpack_from("<HH2sH", head, position)
        if element == 0x0003:
            return head[position + 8 : position + 8 + length].decode("ascii", "replace").rstrip("\0 ")
        position += 8 + length
    return None


def data_set_offset(path: Path) -> int:
    """Where the data set begins in a stored file, in bytes. Raises CorruptInstance if the file is damaged or gone."""
    try:
        with path.open("rb") as file:
            return len(read_head(file))
    except (OSError, ValueError) as error:
        raise CorruptInstance(
            f"a stored file has lost its head: {error.__class__.__name__}", "run dicomnode fsck, then send the instance again"
        ) from None
