"""Decodes the few header values that are indexed into text. Bad bytes become replacement characters, never an exception."""

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes

from dicomnode.receiving.elements import MOST_VALUE_BYTES

# VRs whose text depends on Specific Character Set (PS3.5 6.1.2.2).
_TRANSLATED = frozenset({"SH", "LO", "ST", "LT", "UT", "UC", "PN"})
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_REMEMBERED_BYTES, _REMEMBERED = 128, 8192
_MOST_CHARACTERS = 1024
_MOST_ESCAPES = 64  # a name of three groups needs a dozen; each costs pydicom 20 µs, and a header has many values
_PN_DELIMITERS = {0x5C, 0x5E, 0x3D}  # each resets to the first character set (PS3.5 6.1.2.5.3)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TEXT_DELIMITERS = {0x5C, 0x09, 0x0A, 0x0C, 0x0D}


@lru_cache(maxsize=64)
def encodings_of(specific_character_set: str) -> Sequence[str]:
    """Python's names for the values of (0008,0005); an unknown term counts as the default repertoire."""
    try:
        return tuple(convert_encodings([term.strip() for term in specific_character_set.split("\\")]))
    except Exception:  # noqa: BLE001 - whatever a term makes pydicom do, the object is still storable
        return ("iso8859",)


class _Texts(dict[tuple[str, bytes], str]):
    """(VR, raw value) → text, remembered: the headers of one series are nearly alike."""

    def __init__(self, character_set: bytes, *, little_endian: bool) -> None:
        self._encodings = encodings_of(character_set.decode("ascii", "replace").strip(" \0"))
        self._little_endian = little_endian

    def __missing__(self, value: tuple[str, bytes]) -> str:
        vr, raw = value
        text = as_text(vr, raw, self._encodings, little_endian=self._little_endian)
        if len(raw) <= _REMEMBERED_BYTES:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[value] = text
        return text


_remembered = lru_cache(maxsize=16)(_Texts)


def texts_under(character_set: bytes, *, little_endian: bool) -> Callable[[tuple[str, bytes]], str]:
    """Gives `as_text` of (VR, raw value) under the raw value of (0008,0005)."""
    made = _remembered if len(character_set) <= _REMEMBERED_BYTES else _Texts
    return made(character_set, little_endian=little_endian).__getitem__


def _decoded(raw: bytes, encodings: Sequence[str], delimiters: set[int]) -> str:
    if raw.count(b"\x1b") > _MOST_ESCAPES:
        return raw.decode("latin-1")
    try:
        return decode_bytes(raw, encodings, delimiters)
    except Exception:  # noqa: BLE001 - unpaired escapes and the like
        return raw.decode("latin-1")


def as_text(vr: str, raw: bytes, encodings: Sequence[str], *, little_endian: bool) -> str:
    """The value as text, several values joined by a backslash, without padding; "" for what has no text.

    Control characters other than line ends become spaces: databases do not take NUL, logs and pages no escapes.
    """
    if vr in _NUMBERS:
        return _numbers(raw, ("<" if little_endian else ">"), _NUMBERS[vr])
    raw = raw[:MOST_VALUE_BYTES]
    if vr in _ASCII:
        text = raw.decode("ascii", "replace")
    elif vr in _TRANSLATED:
        text = _decoded(raw, encodings, _PN_DELIMITERS if vr == "PN" else _TEXT_DELIMITERS)
    else:
        return ""
    text = _CONTROL.sub(" ", text[:_MOST_CHARACTERS])
    values = [value.strip() for value in text.split("\\")]
    if vr == "PN":  # component groups that are empty at the end may be left out (PS3.5 6.2.1.1)
        values = [value.rstrip("=") for value in values]
    return "\\".join(values).rstrip("\\")


def _numbers(raw: bytes, order: str, kind: str) -> str:
    size = struct.calcsize(order + kind)
    if not raw or len(raw) % size or len(raw) > MOST_VALUE_BYTES:
        return ""
    return "\\".join(f"{value:g}" if kind in "fd" else str(value) for (value,) in struct.iter_unpack(order + kind, raw))
