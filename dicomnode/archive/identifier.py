"""Identifiers: what a request asks for, read from its data set (PS3.4 C.2.2, C.4.1.1.3). No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicomnode.archive.keys import ANSWER_TAGS, KEYS_BY_TAG, UNIQUE_KEYS, Key, Level, Model
from dicomnode.archive.refusals import RequestRefused

_QUERY_LEVEL, _CHARACTER_SET = 0x00080052, 0x00080005
_MOST_ELEMENTS = 1000
_GROUP_LENGTH = 0x0000
_UNDEFINED = 0xFFFFFFFF
_TRANSLATED = frozenset({"SH", "LO", "ST", "LT", "UT", "UC", "PN"})  # by Specific Character Set (PS3.5 6.1.2.2)
_NAME_DELIMITERS, _TEXT_DELIMITERS = {0x5C, 0x5E, 0x3D}, {0x5C, 0x09, 0x0A, 0x0C, 0x0D}
_MOST_ESCAPES = 256  # each costs pydicom 20 µs
_DEFAULT = ("iso8859",)


@dataclass(frozen=True, slots=True)
class Identifier:
    """keys: keyword → text ("" where only the answer is wanted) of what can be asked for at this level, in ascending tags.

    unsupported: whether something else was asked for. encodings: Python's names for its Specific Character Set, whose text is
    character_set, "" without a known one.
    """

    level: Level
    keys: Mapping[str, str]
    unsupported: bool
    character_set: str
    encodings: tuple[str, ...]

    def values(self, level: Level) -> tuple[str, ...]:
        """Of the unique key of this level; several for a list of UIDs."""
        return tuple(value for part in self.keys.get(UNIQUE_KEYS[level], "").split("\\") if (value := part.strip(" \0")))


def read_identifier(encoded: bytes | None, transfer_syntax_uid: str, model: Model) -> Identifier:
    """Raises RequestRefused."""
    if not encoded:
        raise RequestRefused("no_identifier")
    elements = _elements(encoded, UID(transfer_syntax_uid))
    character_set = _ascii(elements.get(_CHARACTER_SET, b""))
    encodings = encodings_of(character_set) or _DEFAULT
    level = _level(_ascii(elements.get(_QUERY_LEVEL, b"")), model)
    keys: dict[str, str] = {}
    unsupported = False
    for tag, raw in sorted(elements.items()):
        key = KEYS_BY_TAG.get(tag)
        if tag in ANSWER_TAGS or tag & 0xFFFF == _GROUP_LENGTH:
            continue
        if key is None or raw is None or not _known_at(key, level, model):
            unsupported = True
        else:
            keys[key.keyword] = _text(key.vr, raw, encodings)
    return Identifier(level, keys, unsupported, character_set if encodings_of(character_set) else "", encodings)


def _known_at(key: Key, level: Level, model: Model) -> bool:
    """At its own level and, as relational queries have it, at all below. Study Root counts patients by nothing."""
    counted = key.keyword.startswith("NumberOfPatient")
    return key.level <= level and not (counted and (model.top is not Level.PATIENT or level is not Level.PATIENT))


def _level(text: str, model: Model) -> Level:
    try:
        level = Level[text]
    except KeyError:
        raise RequestRefused("wrong_level") from None
    if level < model.top:
        raise RequestRefused("wrong_level")
    return level


def unique_above(identifier: Identifier, model: Model) -> None:
    """Each level above names one entity (PS3.4 C.4.1.2.1, C.4.2.2.1). Raises RequestRefused."""
    for level in Level:
        if model.top <= level < identifier.level:
            values = identifier.values(level)
            if len(values) != 1 or (level is not Level.PATIENT and _is_pattern(values[0])):
                raise RequestRefused("missing_key")


def _is_pattern(value: str) -> bool:
    return "*" in value or "?" in value


def _elements(encoded: bytes, syntax: UID) -> dict[int, bytes | None]:
    """Tag → raw value; None for a sequence and what else has no value of its own. Raises RequestRefused."""
    count = 0

    def enough(_tag: object, _vr: object, _length: object) -> bool:
        nonlocal count
        count += 1
        return count > _MOST_ELEMENTS

    try:
        content = read_dataset(BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian, stop_when=enough)
        found = {int(tag): _raw(content, int(tag)) for tag in content.keys()}  # noqa: SIM118 - a data set's own iterator decodes
    except Exception as error:  # boundary: pydicom raises whatever its parsing ran into
        raise RequestRefused("unreadable") from error
    if not found or count > _MOST_ELEMENTS:
        raise RequestRefused("unreadable")
    return found


def _raw(content: Dataset, tag: int) -> bytes | None:
    element = content.get_item(tag, keep_deferred=True)  # else it makes an element of one without value
    if not isinstance(element, RawDataElement) or element.VR == "SQ":
        return None
    value = bytes(element.value or b"")
    if len(value) < element.length != _UNDEFINED:  # which pydicom lets pass
        raise RequestRefused("unreadable")
    return value


def encodings_of(character_set: str) -> tuple[str, ...]:
    """Python's names for the values of (0008,0005); () for what PS3.3 C.12.1.1.2 does not know."""
    terms = [term.strip() for term in character_set.split("\\")]
    return tuple(convert_encodings(terms)) if all(term in python_encoding for term in terms) else ()


def _ascii(raw: bytes | None) -> str:
    return (raw or b"").decode("ascii", "replace").strip(" \0")


def _text(vr: str, raw: bytes, encodings: tuple[str, ...]) -> str:
    if vr == "US":  # Implicit and Explicit VR Little Endian are the only ones that are agreed on
        return str(int.from_bytes(raw, "little")) if len(raw) == 2 else ""
    if vr not in _TRANSLATED or (raw.isascii() and b"\x1b" not in raw and encodings[0] != "shift_jis"):
        return raw.decode("ascii", "replace").strip(" \0")
    if raw.count(b"\x1b") > _MOST_ESCAPES:
        raise RequestRefused("unreadable")
    try:
        text = decode_bytes(raw, encodings, _NAME_DELIMITERS if vr == "PN" else _TEXT_DELIMITERS)
    except Exception:  # noqa: BLE001 - unpaired escapes and the like
        text = raw.decode("latin-1")
    return text.strip(" \0")
