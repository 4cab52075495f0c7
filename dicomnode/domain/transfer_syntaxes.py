"""Which transfer syntaxes are taken, by UID and by name, and which is chosen when a sender offers several (PS3.8 9.3.3.2)."""

import difflib
from collections.abc import Sequence

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

# Of PS3.6 Table A-1, newer than pydicom 3.0's dictionary: UID → (name, keyword). pynetdicom adds them when it is imported.
_NEWER = {
    "1.2.840.10008.1.2.4.110": ("JPEG XL Lossless", "JPEGXLLossless"),
    "1.2.840.10008.1.2.4.111": ("JPEG XL JPEG Recompression", "JPEGXLJPEGRecompression"),
    "1.2.840.10008.1.2.4.112": ("JPEG XL", "JPEGXL"),
    "1.2.840.10008.1.2.8.1": ("Deflated Image Frame Compression", "DeflatedImageFrameCompression"),
}
# Live video and audio streams (PS3.22), mail, XML and Papyrus files are no data sets on an association.
_NEVER_ON_AN_ASSOCIATION = ("1.2.840.10008.1.2.7.", "1.2.840.10008.1.2.6.", "1.2.840.10008.1.20")


def _in_order() -> tuple[str, ...]:
    """Lossless, uncompressed, the others; big endian last.

    Lossless before uncompressed: a sender that offers both (dcmsend) mostly has the former and would decompress for nothing.
    Uncompressed before lossy: a sender that offers both must not compress for us. The retired JPEG processes
    (PS3.5-2004 A.4.1) still come out of old archives; they are stored as received like all others.
    """
    lossless = [f"1.2.840.10008.1.2.4.{n}" for n in ("57", "70", "80", "90", "92", "201", "202", "110")]
    first = [*lossless, str(RLELossless), str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    last = [str(ExplicitVRBigEndian)]
    listed = {uid: status for uid, (_, kind, _, status, _) in UID_dictionary.items() if kind == "Transfer Syntax"}
    retired = [uid for uid, status in listed.items() if status == "Retired"]
    current = dict.fromkeys([*(uid for uid in listed if uid not in retired), *_NEWER])
    others = [uid for uid in (*current, *retired) if uid not in {*first, *last}]
    return (*first, *(uid for uid in others if not uid.startswith(_NEVER_ON_AN_ASSOCIATION)), *last)


TRANSFER_SYNTAXES = _in_order()
# pydicom's keyword, such as JPEGLSLossless → UID. pydicom 3.0.2 has no JPEG XL (…4.110): it goes by its UID alone.
_BY_KEYWORD = {UID_dictionary[uid][4]: uid for uid in TRANSFER_SYNTAXES if uid in UID_dictionary}


def transfer_syntax_uid(text: str) -> str:
    """The UID that `text`, a UID or a keyword such as JPEGLSLossless, names. Raises ValueError, naming the nearest keyword."""
    text = text.strip()
    if text in TRANSFER_SYNTAXES:
        return text
    by_folded = {keyword.casefold(): keyword for keyword in _BY_KEYWORD}
    if text.casefold() in by_folded:
        return _BY_KEYWORD[by_folded[text.casefold()]]
    if text in UID_dictionary:
        raise ValueError(f"this is {UID_dictionary[text][0]}, no transfer syntax in which a data set can come")
    names = TRANSFER_SYNTAXES if text[:1].isdigit() else tuple(by_folded.values())
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)[0]
    raise ValueError(f"this is no transfer syntax that is taken; the nearest one is {near}")


def preferred_first(preferred: Sequence[str]) -> tuple[str, ...]:
    """All transfer syntaxes in the order of choice: these UIDs first, then the others in the usual order."""
    first = tuple(dict.fromkeys(preferred))
    return (*first, *(uid for uid in TRANSFER_SYNTAXES if uid not in first))
