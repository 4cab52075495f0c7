"""UIDs of results: 2.25.<UUIDv8> (PS3.5 B.2, RFC 9562 5.8) that carry this software's mark and depend only on what they name.

The first 40 of the 122 free bits are a fixed mark, the rest come from a SHA-256. So the same sources, pipeline, model, findings
and version give the same UID again, and a result that a PACS sends back is known without asking anybody.
"""

import hashlib
import uuid
from collections.abc import Sequence

RESULT_MARK = 0xD1C0_A10DE5  # "ours": results of this software
PHANTOM_MARK = 0xD1C0_F4A470  # synthetic patients: input, never "ours"

_VERSION_8 = 8


def derived_uid(parts: Sequence[str], *, mark: int = RESULT_MARK, root: str | None = None) -> str:
    """A UID that is a function of `parts` alone, 64 characters at most.

    With `root` (a hospital's own) the number after the root is a 96-bit digest and the mark does not show: the loop guard then
    leans on the registry and on Contributing Equipment.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    if root is not None:
        return f"{root.rstrip('.')}.{int.from_bytes(digest[:12], 'big')}"
    free = int.from_bytes(digest, "big")
    value = (mark << 88) | (free & ((1 << 88) - 1))
    value = (value & ~(0xF << 76)) | (_VERSION_8 << 76)  # RFC 9562: version in bits 48-51
    value = (value & ~(0x3 << 62)) | (0x2 << 62)  # variant in bits 64-65
    return f"2.25.{uuid.UUID(int=value).int}"


def has_mark(uid: str, mark: int = RESULT_MARK) -> bool:
    """Whether `uid` was made by `derived_uid` with this mark."""
    prefix, _, number = uid.rpartition(".")
    if prefix != "2.25" or not number.isdecimal():
        return False
    value = int(number)
    return value >> 88 == mark and (value >> 76) & 0xF == _VERSION_8 and (value >> 62) & 0x3 == 0x2
