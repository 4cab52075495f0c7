"""Valid messages to start from. Each sample says where its structure is, so that mutations hit lengths and types."""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests.receiving import raw
from tests.receiving.raw import pdu, pdv, store_command
from tests.receiving.samples import CT, EBE, ELE, ILE, ct, encoded

DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
_LONG_VRS = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


@dataclass(frozen=True, slots=True)
class Sample:
    """data: valid bytes. marks: places of lengths, types and identifiers. kind: what the target needs to know of it."""

    data: bytes
    marks: tuple[int, ...]
    kind: str = ""


# Fixed: the same case must be the same bytes in every run.
_UIDS = {
    keyword: f"2.25.{number}"
    for number, keyword in enumerate(
        ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), 1 << 90
    )
}


@lru_cache
def image() -> Dataset:
    """A small image with a sequence and a name in two character sets."""
    one = ct(PixelData=bytes(64), Rows=8, Columns=4, **_UIDS)
    one.ReferencedStudySequence = Sequence([Dataset()])
    one.ReferencedStudySequence[0].ReferencedSOPClassUID = CT
    one.PatientName = "Test^Ada=試験=てすと"
    one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    return one


def pdus() -> Iterator[Sample]:
    """What follows an A-ASSOCIATE-AC: whole sessions of one to three messages, cut in every legal way."""
    chosen = random.Random(1)  # noqa: S311
    data, command, echo = encoded(image()), store_command(image().SOPInstanceUID), echo_command()
    one = pdu(4, pdv(command, command=True, last=True) + pdv(data, command=False, last=True))
    cut = b"".join(pdu(4, pdv(data[at : at + 100], command=False, last=False)) for at in range(0, len(data), 100))
    many = pdu(4, pdv(command[:9], command=True, last=False) + pdv(command[9:], command=True, last=True)) + cut
    many += pdu(4, pdv(b"", command=False, last=True))
    sizes = iter(lambda: chosen.randint(0, 60), None)
    small, at = b"", 0
    while at < len(data):
        size = next(sizes)
        small += pdv(data[at : at + size], command=False, last=at + size >= len(data))
        at += size
    release, abort = pdu(5, bytes(4)), pdu(7, bytes(4))
    small = pdu(4, pdv(command, command=True, last=True)) + pdu(4, small)
    ping = pdu(4, pdv(echo, command=True, last=True))
    for session in (one + release, many + release, small + abort, ping + one + ping, one + one + release, ping + release, cut):
        yield Sample(session, tuple(_marks_of_pdus(session)))


def commands() -> Iterator[Sample]:
    """Command sets (PS3.7 9.3)."""
    for command in (store_command(image().SOPInstanceUID), echo_command(), cancel_command()):
        yield Sample(command, tuple(_marks_of_elements(command, explicit=False, order="<")))


def data_sets() -> Iterator[Sample]:
    """One image in each kind of encoding; `kind` is the transfer syntax."""
    for syntax in (ELE, ILE, EBE):
        data = encoded(image(), syntax)
        yield Sample(data, tuple(_marks_of_elements(data, explicit=syntax != ILE, order=">" if syntax == EBE else "<")), syntax)
    explicit = encoded(image())
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    yield Sample(deflater.compress(explicit) + deflater.flush(), (0, 1, 2), DEFLATED)
    pixels = ct(PixelData=None, **_UIDS)
    pixels.add_new("PixelData", "OB", encapsulate([bytes(30), bytes(20)]))
    pixels["PixelData"].is_undefined_length = True
    data = encoded(pixels)
    yield Sample(data, tuple(_marks_of_elements(data, explicit=True, order="<")), RLE)


def requests() -> Iterator[Sample]:
    """A-ASSOCIATE-RQ PDUs (PS3.8 9.3.2), plain and with every user item."""
    many = [(f"1.2.840.10008.5.1.4.1.1.{number}", (ELE, ILE, EBE)) for number in range(1, 6)]
    items = b"".join(
        struct.pack(">BBH", kind, 0, len(body)) + body
        for kind, body in (
            (0x53, struct.pack(">HH", 5, 5)),  # asynchronous operations window (PS3.7 D.3.3.3)
            (0x54, struct.pack(">H", len(CT)) + CT.encode() + b"\1\0"),  # role selection (D.3.3.4)
            (0x56, struct.pack(">H", len(CT)) + CT.encode() + bytes(6)),  # extended negotiation (D.3.3.5)
            (0x57, struct.pack(">H3sH3sH", 3, b"1.2", 3, b"1.3", 0)),  # common extended negotiation (D.3.3.6)
            (0x58, b"\1\1" + struct.pack(">H4sH6s", 4, b"user", 6, b"secret")),  # user identity (D.3.3.7)
        )
    )
    for request in (raw.associate_rq(), raw.associate_rq(contexts=many), with_user_items(raw.associate_rq(), items)):
        yield Sample(request, tuple(_marks_of_items(request)))


def with_user_items(request: bytes, items: bytes) -> bytes:
    """The same request with more items in its User Information (PS3.8 9.3.2.3), which is its last variable item."""
    at = next(at for at in _tops_of_items(request) if request[at] == 0x50)
    (length,) = struct.unpack_from(">H", request, at + 2)
    changed = request[: at + 2] + struct.pack(">H", length + len(items)) + request[at + 4 :] + items
    return changed[:2] + struct.pack(">L", len(changed) - 6) + changed[6:]


def echo_command() -> bytes:
    return _command((0x0002, b"1.2.840.10008.1.1\0"), (0x0100, b"\x30\0"), (0x0110, b"\1\0"), (0x0800, b"\1\1"))


def cancel_command() -> bytes:
    return _command((0x0100, b"\xff\x0f"), (0x0120, b"\1\0"), (0x0800, b"\1\1"))


def _command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _marks_of_pdus(session: bytes) -> Iterator[int]:
    at = 0
    while at + 6 <= len(session):
        kind, length = struct.unpack_from(">BxL", session, at)
        yield from (at, at + 1, *range(at + 2, at + 6))
        inner = at + 6
        at += 6 + length
        while kind == 4 and inner + 6 <= at:
            (pdv_length,) = struct.unpack_from(">L", session, inner)
            yield from range(inner, inner + 6)
            if session[inner + 5] & 1:
                start = inner + 6
                yield from (start + mark for mark in _marks_of_elements(session[start : inner + 4 + pdv_length], False, "<"))
            inner += 4 + pdv_length


def _marks_of_elements(data: bytes, explicit: bool, order: str) -> Iterator[int]:
    """Of the outer elements up to the first with an undefined length."""
    at = 0
    while at + 8 <= len(data):
        long = not explicit or data[at + 4 : at + 6] in _LONG_VRS
        header = 12 if explicit and long else 8
        yield from range(at, min(at + header, len(data)))
        if at + header > len(data):
            return
        (length,) = struct.unpack_from(order + ("L" if long else "H"), data, at + header - (4 if long else 2))
        if length == 0xFFFFFFFF:
            return
        at += header + length


def _tops_of_items(request: bytes) -> Iterator[int]:
    at = 74  # PDU header, protocol version, titles, reserved (PS3.8 Table 9-11)
    while at + 4 <= len(request):
        yield at
        at += 4 + struct.unpack_from(">H", request, at + 2)[0]


def _marks_of_items(request: bytes) -> Iterator[int]:
    yield from range(10)
    for at in _tops_of_items(request):
        yield from range(at, at + 8)
        end = at + 4 + struct.unpack_from(">H", request, at + 2)[0]
        inner = at + (8 if request[at] == 0x20 else 4)
        while request[at] in {0x20, 0x50} and inner + 4 <= end:
            yield from range(inner, min(inner + 8, end))
            inner += 4 + struct.unpack_from(">H", request, inner + 2)[0]
