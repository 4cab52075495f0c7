"""The load generator sends what it says, and believes no answer but 0x0000."""

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomnode.bench import load, objects
from dicomnode.bench.load import Job, Stream, status_of
from dicomnode.bench.objects import SentObject
from dicomnode.bench.sending import associate_rq, c_store_rq


def job_for(sent: SentObject, folder: Path, **changed: Any) -> Job:
    head = folder / "head"
    head.write_bytes(sent.head)
    options: dict[str, Any] = {
        "port": 0,
        "associate_rq": "",
        "command_set": c_store_rq(sent.sop_class, sent.uid).hex(),
        "head_file": str(head),
        "uid": sent.uid,
        "counter_digits": objects.COUNTER_DIGITS,
        "filler_bytes": sent.filler_bytes,
        "images": 1,
        "associations": 1,
    }
    return Job(**{**options, **changed})


def pdus(stream: Stream) -> list[bytes]:
    """The PDUs of one image."""
    data, found = bytes(stream.first) + stream.block * stream.blocks + stream.end, []
    while data:
        length = struct.unpack_from(">L", data, 2)[0]
        found.append(data[: 6 + length])
        data = data[6 + length :]
    return found


def data_set(stream: Stream) -> bytes:
    return b"".join(pdu[12:] for pdu in pdus(stream) if not pdu[11] & 1)


@pytest.mark.parametrize("announced", [0, 4096, 16384, 16382, 131072])
@pytest.mark.parametrize("make", [objects.mr, lambda: objects.multi_frame(3 << 19)], ids=["mr", "frames"])
def test_the_data_set_is_cut_into_pdus_that_the_peer_reads(tmp_path: Path, announced: int, make: Any) -> None:
    sent = make()
    stream = Stream(job_for(sent, tmp_path), announced)
    assert hashlib.sha256(data_set(stream)).hexdigest() == sent.sha256_of(0)
    cut = pdus(stream)
    assert max(len(pdu) - 6 for pdu in cut) <= (announced or load.LONGEST_PDU)
    assert [pdu[11] for pdu in cut] == [3, *[0] * (len(cut) - 2), 2]  # a command, fragments, the last fragment (PS3.8 E.2)
    assert all((len(pdu) - 12) % 2 == 0 for pdu in cut)  # PS3.8 9.3.5.1
    assert stream.size_bytes == sum(map(len, cut))


def test_images_differ_in_their_uid_and_in_nothing_else(tmp_path: Path) -> None:
    sent = objects.mr()
    stream = Stream(job_for(sent, tmp_path), 16384)
    for index in (0, 7, 521, 12345678):
        stream.patch(index)
        assert hashlib.sha256(data_set(stream)).hexdigest() == sent.sha256_of(index)
        command = pydicom.dcmread(io.BytesIO(pdus(stream)[0][12:]), force=True)
        assert command.AffectedSOPInstanceUID == sent.uid_of(index)
        assert command.MessageID == index % 65535 + 1
        read = pydicom.dcmread(io.BytesIO(data_set(stream)), force=True)
        assert read.SOPInstanceUID == sent.uid_of(index)


def test_the_big_object_holds_as_many_pixels_as_its_header_says() -> None:
    sent = objects.multi_frame(1 << 30)
    header = pydicom.dcmread(io.BytesIO(sent.head), force=True, stop_before_pixels=True)
    assert header.NumberOfFrames * header.Rows * header.Columns * 2 == sent.filler_bytes == 1 << 30


@pytest.mark.parametrize("message_id", [1, 0x0209, 0x0900, 65535])
def test_the_status_is_found_whatever_the_message_id_looks_like(message_id: int) -> None:
    elements = [(0x0002, b"1.2 "), (0x0100, b"\1\x80"), (0x0120, struct.pack("<H", message_id)), (0x0800, b"\1\1")]
    elements.append((0x0900, b"\0\xa7"))
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    assert status_of(struct.pack(">LBB", len(body) + 2, 1, 3) + body) == 0xA700


def test_the_association_request_names_the_peer_and_one_context() -> None:
    from pynetdicom.pdu import A_ASSOCIATE_RQ

    pdu = A_ASSOCIATE_RQ()
    pdu.decode(associate_rq(objects.mr().sop_class, "PEER"))
    assert pdu.called_ae_title.strip() == "PEER"
    assert [context.abstract_syntax for context in pdu.presentation_context] == [objects.mr().sop_class]
