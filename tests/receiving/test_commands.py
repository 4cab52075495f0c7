"""The command-set reader and the response templates, against pydicom's reading of the same bytes."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from dicomnode.receiving.commands import C_ECHO_RSP, C_STORE_RQ, C_STORE_RSP, Command, read_command, response
from dicomnode.receiving.pdu import MustAbort
from tests.receiving.raw import command, echo_command, element, store_command
from tests.receiving.samples import CT


def test_a_c_store_request_is_read() -> None:
    read = read_command(store_command("1.2.3.4", message_id=65535))
    assert (read.field, read.message_id, read.has_data_set) == (C_STORE_RQ, 65535, True)
    assert (read.sop_class_uid, read.sop_instance_uid) == (CT, "1.2.3.4")


def test_a_c_echo_request_has_no_data_set_and_no_instance() -> None:
    read = read_command(echo_command(3))
    assert (read.field, read.message_id, read.has_data_set, read.sop_instance_uid) == (0x30, 3, False, "")


def test_group_length_order_and_unknown_elements_do_not_matter() -> None:
    without = store_command("1.2.3")[12:]
    moved = element(0x1000, b"1.2.3") + element(0x0800, 0) + element(0x0110, 1) + element(0x0100, 1)
    assert read_command(without).sop_instance_uid == "1.2.3"
    assert read_command(moved + element(0x5555, b"anything")).sop_instance_uid == "1.2.3"


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0\0"])
def test_uids_are_read_without_their_padding(padding: bytes) -> None:
    value = b"1.2.3" + padding
    encoded = store_command("1")[12:-10] + struct.pack("<HHL", 0, 0x1000, len(value)) + value
    assert read_command(encoded).sop_instance_uid == "1.2.3"


def test_what_is_no_uid_is_read_as_something_that_no_data_set_has() -> None:
    assert (
        read_command(command(element(0x0100, 1), element(0x0800, 1), element(0x1000, b"\xff\xfe"))).sop_instance_uid
        == r"\xff\xfe"
    )


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        (b"", "command_incomplete"),
        (store_command("1.2.3")[:-1], "command_cut"),
        (store_command("1.2.3") + b"\0\0", "command_cut"),
        (struct.pack("<HHL", 0, 0x1000, 0xFFFFFFFF), "command_cut"),
        (store_command("1.2.3") + struct.pack("<HHL", 8, 0x16, 0), "command_group"),
        (store_command("1.2.3") + element(0x1000, b"1.2.4"), "command_element"),
        (element(0x0100, b"\1\0\0\0") + element(0x0800, 1), "command_element"),
        (element(0x0100, 1), "command_incomplete"),
        (element(0x0800, 1), "command_incomplete"),
    ],
)
def test_a_command_that_does_not_hold_together_ends_the_association(encoded: bytes, code: str) -> None:
    with pytest.raises(MustAbort) as caught:
        read_command(encoded)
    assert caught.value.code == code


@given(encoded=st.binary(max_size=80) | st.binary(max_size=20).map(lambda tail: store_command("1.2.3") + tail))
def test_any_bytes_are_a_command_or_end_the_association(encoded: bytes) -> None:
    try:
        read = read_command(encoded)
    except MustAbort:
        return
    assert isinstance(read.sop_class_uid, str)
    assert 0 <= read.field <= 0xFFFF


@settings(max_examples=60, deadline=None)
@given(status=st.integers(0, 0xFFFF), comment=st.text(max_size=80), instance=st.from_regex(r"\A1(\.[1-9][0-9]{0,6}){1,7}\Z"))
def test_a_response_is_what_pydicom_reads_in_it(status: int, comment: str, instance: str) -> None:
    request = Command(C_STORE_RQ, 9, has_data_set=True, sop_class=CT.encode(), sop_instance=instance.encode())
    encoded = response(C_STORE_RSP, request, status, comment)
    assert len(encoded) % 2 == 0
    assert struct.unpack_from("<HHLL", encoded) == (0, 0, 4, len(encoded) - 12)
    read = read_dataset(DicomBytesIO(encoded), is_implicit_VR=True, is_little_endian=True)  # type: ignore[arg-type]
    assert [one.tag.element for one in read] == sorted(one.tag.element for one in read)
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.CommandDataSetType) == (C_STORE_RSP, 9, 0x0101)
    assert (read.AffectedSOPClassUID, str(read.AffectedSOPInstanceUID), read.Status) == (CT, instance, status)
    raw_comment = read.get_item(0x00000902)  # not through pydicom's checks of text
    assert (raw_comment is None) == (not comment)
    assert raw_comment is None or len(raw_comment.value) <= 64


def test_a_c_echo_response_names_no_instance() -> None:
    read = read_command(response(C_ECHO_RSP, read_command(echo_command(3)), 0))
    assert (read.sop_class_uid, read.sop_instance) == ("1.2.840.10008.1.1", None)
