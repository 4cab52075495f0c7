"""Matches as data sets (PS3.4 C.4.1.1.3.2). No I/O.

Written here rather than by pydicom: a flat data set of twenty text values takes 20 µs instead of 1 ms, and while Python
encodes, images on their way in wait.
"""

import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.charset import decode_bytes, encode_string
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.archive.identifier import Identifier
from dicomnode.archive.keys import ANSWER_KEYS, KEYS, UNIQUE_KEYS, Key

IMPLICIT = str(ImplicitVRLittleEndian)

_WIDER_IN_PYTHON = ("shift_jis",)  # ISO_IR 13 is but the one-byte half of it
_UTF_8 = "ISO_IR 192"
_TRANSLATED = frozenset({"SH", "LO", "ST", "LT", "UT", "UC", "PN"})
_HEAD = struct.Struct("<HH2sH")
_IMPLICIT_HEAD = struct.Struct("<HHL")
_LONGEST = 0xFFFE  # of a value with a length of 16 bits, even
_DELIMITERS = {0x5C, 0x5E, 0x3D, 0x09, 0x0A, 0x0C, 0x0D}


@dataclass(frozen=True, slots=True)
class _Set:
    """A character set: its text in (0008,0005), and Python's names for it."""

    text: str
    encodings: tuple[str, ...]

    def encode(self, key: Key, text: str) -> bytes | None:
        """None for text that it cannot say."""
        if len(self.encodings) == 1 and self.encodings != _WIDER_IN_PYTHON:
            try:
                return text.encode(self.encodings[0])
            except UnicodeError:
                return None
        parts = text.split("=") if key.vr == "PN" else [text]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot say it is seen below
            encoded = b"=".join(b"^".join(encode_string(one, self.encodings) for one in part.split("^")) for part in parts)
            try:
                return encoded if decode_bytes(encoded, self.encodings, _DELIMITERS) == text else None
            except Exception:  # noqa: BLE001 - whatever it makes pydicom do, UTF-8 can say it
                return None


class Answers:
    """Makes the identifiers of the answers to one query."""

    def __init__(self, asked: Identifier, *, explicit_vr: bool, ae_title: str) -> None:
        """ae_title: ours, as it was called: from there the match can be retrieved."""
        self._explicit_vr = explicit_vr
        self._asked_set = _Set(asked.character_set, asked.encodings) if asked.character_set else None
        fixed = {"QueryRetrieveLevel": asked.level.name, "RetrieveAETitle": ae_title, "InstanceAvailability": "ONLINE"}
        self._fixed = {ANSWER_KEYS[keyword]: text for keyword, text in fixed.items()}
        wanted = {KEYS[keyword] for keyword in (*asked.keys, UNIQUE_KEYS[asked.level])}
        self._wanted = sorted({*wanted, *self._fixed}, key=lambda key: key.tag)

    def encode(self, attributes: Mapping[str, str]) -> bytes:
        """One match (keyword → text). What was asked for and has no value is there, empty.

        In the character set of the query where it can say all of it, else in UTF-8.
        """
        texts = [(key, self._fixed.get(key) or attributes.get(key.keyword, "")) for key in self._wanted]
        if all(text.isascii() for _, text in texts):
            return b"".join(self._element(key, _plain(key, text)) for key, text in texts)
        for one in (self._asked_set, _Set(_UTF_8, ("utf-8",))):
            if one is not None and (values := _encoded(one, texts)) is not None:
                head = self._element(ANSWER_KEYS["SpecificCharacterSet"], one.text.encode("ascii"))
                return head + b"".join(self._element(key, value) for (key, _), value in zip(texts, values, strict=True))
        raise AssertionError("UTF-8 can say everything")

    def _element(self, key: Key, value: bytes) -> bytes:
        value = value[:_LONGEST]
        if len(value) % 2:
            value += b"\0" if key.vr == "UI" else b" "
        group, element = key.tag >> 16, key.tag & 0xFFFF
        if self._explicit_vr:
            return _HEAD.pack(group, element, key.vr.encode(), len(value)) + value
        return _IMPLICIT_HEAD.pack(group, element, len(value)) + value


def _plain(key: Key, text: str) -> bytes:
    if key.vr == "US":
        numbers = [int(value) for value in text.split("\\") if value.isdecimal()]  # a text, where the object said so
        return b"".join(struct.pack("<H", number) for number in numbers if number < 1 << 16)
    return text.encode("utf-8")


def _encoded(character_set: _Set, texts: Sequence[tuple[Key, str]]) -> list[bytes] | None:
    values = []
    for key, text in texts:
        value = character_set.encode(key, text) if key.vr in _TRANSLATED and not text.isascii() else _plain(key, text)
        if value is None:
            return None
        values.append(value)
    return values


def failed_list(uids: Sequence[str], *, explicit_vr: bool) -> bytes:
    """The identifier of a retrieval that did not go well: Failed SOP Instance UID List (0008,0058) (PS3.4 C.4.2.1.4.2)."""
    value = "\\".join(uids).encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    if not value:
        return b""
    if not explicit_vr:
        return _IMPLICIT_HEAD.pack(0x0008, 0x0058, len(value)) + value
    # The length of a UI has 16 bits (PS3.5 7.1.2): a longer value goes as UN, as PS3.5 6.2.2 has it.
    if len(value) > _LONGEST:
        return struct.pack("<HH2sHL", 0x0008, 0x0058, b"UN", 0, len(value)) + value
    return _HEAD.pack(0x0008, 0x0058, b"UI", len(value)) + value
