"""Understands a data set up to its pixel data, while it comes: identity, indexed attributes, where the pixels are."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomnode.domain.errors import InvalidInstance
from dicomnode.domain.received import INDEXED_KEYWORDS
from dicomnode.domain.statuses import STORE_CONDITIONS
from dicomnode.receiving.elements import ElementReader, Encoding, Unscannable, Wanted
from dicomnode.receiving.values import texts_under

DEFLATED = frozenset(
    {
        str(DeflatedExplicitVRLittleEndian),
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    }
)
PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer (PS3.3 C.7.6.24, C.7.6.3)
CONTRIBUTING_EQUIPMENT = 0x0018A001
_CHARACTER_SET = 0x00080005
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no DICOM keyword")
    return int(tag)


_KEYWORDS: Mapping[int, str] = {_tag(keyword): keyword for keyword in (*INDEXED_KEYWORDS, *_IDENTITY)}
_DICTIONARY_VRS: Mapping[int, str] = {tag: dictionary_VR(tag) for tag in _KEYWORDS}
_WANTED = Wanted(frozenset(_KEYWORDS), CONTRIBUTING_EQUIPMENT, PIXEL_DATA_TAGS)
_INFLATED_AT_ONCE = 65_536
_LONGEST_UID = 64
_NO_VR = frozenset({"", "UN"})


class Refused(InvalidInstance):
    """An object that is not accepted. code: the outcome in `STORE_CONDITIONS`. what: for the sender, quotes no value."""

    def __init__(self, code: str, what: str = "") -> None:
        condition = STORE_CONDITIONS[code]
        super().__init__(what or condition.comment, "correct the object at its source and send it again", condition.status)
        self.code = code


@dataclass(frozen=True, slots=True)
class Header:
    """What the elements before the pixel data say.

    attributes: indexed keyword → text; absent and empty values have no entry. pixels: where the pixel value starts in the
    (inflated) data set, and its length in bytes, which is None if undefined (encapsulated); None without pixels. The length is
    what the element says, not what was received. contributing_equipment: the encoded element (0018,A001), b"" without one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, str]
    pixels: tuple[int, int | None] | None
    contributing_equipment: bytes
    encoding: Encoding


@lru_cache(maxsize=64)
def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Implicit VR Little Endian, Explicit VR Big Endian, else Explicit VR Little Endian (PS3.5 A.4: all encapsulated ones)."""
    return Encoding(
        explicit_vr=transfer_syntax_uid != ImplicitVRLittleEndian, little_endian=transfer_syntax_uid != ExplicitVRBigEndian
    )


class HeaderReader:
    """Reads the header of one data set as it comes, in pieces of any size. Memory and time are bounded whatever comes.

    at_most_inflated: bytes of a deflated data set (PS3.5 A.5); a longer one is refused, because a few kilobytes can inflate to
    gigabytes. It is inflated in small steps to its end, so its header is known only at `finish`.
    """

    def __init__(self, transfer_syntax_uid: str, *, at_most_inflated: int) -> None:
        self._encoding = encoding_of(transfer_syntax_uid)
        self._elements = ElementReader(self._encoding, _WANTED)
        self._inflater = Inflater(at_most_inflated) if transfer_syntax_uid in DEFLATED else None
        self._header: Header | None = None

    def feed(self, pieces: Sequence[memoryview]) -> Header | None:
        """The header, as soon as the pixel data begin; None: more is needed. Raises Refused."""
        try:
            for piece in pieces:
                if self._inflater is not None:
                    for inflated in self._inflater.feed(piece):
                        if self._header is None and self._elements.feed(inflated):
                            self._header = self._made()
                elif self._elements.feed(piece):
                    return self._made()
        except Unscannable as error:
            raise _unscannable(error) from None
        return None

    def finish(self) -> Header:
        """At the data set's end: the header of an object without pixels or of a deflated one. Raises Refused."""
        if self._header is None:
            try:
                self._elements.finish()
            except Unscannable as error:
                raise _unscannable(error) from None
            self._header = self._made()
        return self._header

    def _made(self) -> Header:
        """Raises Refused if an identifying UID is missing."""
        texts = _texts(self._elements.values, little_endian=self._encoding.little_endian)
        return Header(
            sop_class_uid=_uid(texts.get("SOPClassUID", ""), "SOPClassUID"),
            sop_instance_uid=_uid(texts.pop("SOPInstanceUID", ""), "SOPInstanceUID"),
            study_instance_uid=_uid(texts.pop("StudyInstanceUID", ""), "StudyInstanceUID"),
            series_instance_uid=_uid(texts.pop("SeriesInstanceUID", ""), "SeriesInstanceUID"),
            attributes=texts,
            pixels=self._elements.end,
            contributing_equipment=self._elements.sequence,
            encoding=self._encoding,
        )


class Inflater:
    """Inflates a deflated data set in steps. Raises Refused if it is not deflated or longer than `at_most` bytes."""

    def __init__(self, at_most: int) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._left = at_most

    def feed(self, piece: memoryview) -> Iterator[memoryview]:
        """What this piece inflates to. What follows the end of the stream (PS3.5 A.5: one byte of padding) is nothing."""
        rest: memoryview | bytes = piece
        while not self._stream.eof:
            try:
                inflated = self._stream.decompress(rest, _INFLATED_AT_ONCE)
            except zlib.error:
                raise Refused("deflated") from None
            self._left -= len(inflated)
            if self._left < 0:
                raise Refused("deflated_too_large")
            if inflated:
                yield memoryview(inflated)
            rest = self._stream.unconsumed_tail
            if not rest and len(inflated) < _INFLATED_AT_ONCE:
                return


def scan(data_set: memoryview, transfer_syntax_uid: str, *, at_most_inflated: int = 1 << 30) -> Header:
    """The header of a whole data set. Raises Refused (C000) if it does not scan or an identifying UID is missing."""
    reader = HeaderReader(transfer_syntax_uid, at_most_inflated=at_most_inflated)
    return reader.feed([data_set]) or reader.finish()


def _unscannable(error: Unscannable) -> Refused:
    return Refused("unscannable", f"unreadable data set: {error}")


def _texts(values: Mapping[int, tuple[str, bytes]], *, little_endian: bool) -> dict[str, str]:
    """Keyword → text of all values that are not empty."""
    text_of = texts_under(values.get(_CHARACTER_SET, ("CS", b""))[1], little_endian=little_endian)
    texts = {}
    for tag, written in values.items():
        if text := text_of(written if written[0] not in _NO_VR else (_DICTIONARY_VRS[tag], written[1])):
            texts[_KEYWORDS[tag]] = text
    return texts


def _uid(uid: str, keyword: str) -> str:
    if not uid:
        raise Refused("missing_uid", f"{keyword} is missing")
    if len(uid) > _LONGEST_UID or not uid.isascii() or " " in uid or "\\" in uid:
        raise Refused("bad_uid", f"{keyword} is no UID")
    return uid
