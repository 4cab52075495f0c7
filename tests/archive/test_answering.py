"""Answers, read back by pydicom."""

from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from dicomnode.archive.answering import IMPLICIT, Answers, failed_list
from dicomnode.archive.identifier import Identifier, read_identifier
from dicomnode.archive.keys import STUDY_ROOT
from tests.receiving.samples import ELE

HELD = {
    "PatientName": "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
    "PatientID": "P1",
    "StudyDescription": "Thorax",
    "StudyInstanceUID": "1.2.3",
    "ModalitiesInStudy": "CT\\SEG",
    "Rows": "512",
}


def asked(character_set: str | list[str] = "", syntax: str = ELE, level: str = "STUDY") -> Identifier:
    wanted = Dataset()
    if character_set:
        wanted.SpecificCharacterSet = character_set
    wanted.QueryRetrieveLevel = level
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyDescription",
        "ModalitiesInStudy",
        "StudyDate",
        "AccessionNumber",
        "Rows",
    ):
        setattr(wanted, keyword, None)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(buffer, wanted)
    return read_identifier(buffer.getvalue(), syntax, STUDY_ROOT)


def read(encoded: bytes, syntax: str = ELE) -> Dataset:
    found = read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)
    assert list(found.keys()) == sorted(found.keys())
    found.walk(lambda _, element: element.value)
    found.decode()
    return found


@pytest.mark.parametrize("syntax", [ELE, IMPLICIT])
def test_an_answer_holds_what_was_asked_for_and_its_unique_key(syntax: str) -> None:
    answers = Answers(asked(syntax=syntax), explicit_vr=syntax == ELE, ae_title="NODE")
    match = read(answers.encode(HELD), syntax)
    assert match.SpecificCharacterSet == "ISO_IR 192"
    assert str(match.PatientName) == HELD["PatientName"]
    assert (match.PatientID, match.StudyInstanceUID, match.QueryRetrieveLevel) == ("P1", "1.2.3", "STUDY")
    assert list(match.ModalitiesInStudy) == ["CT", "SEG"]
    assert (match.RetrieveAETitle, match.InstanceAvailability) == ("NODE", "ONLINE")
    assert "StudyDate" in match, "asked for and unknown: there, and empty"
    assert not match.StudyDate
    assert "Rows" not in match, "of no study"


def test_numbers_are_numbers_at_the_level_of_images() -> None:
    match = read(Answers(asked(level="IMAGE"), explicit_vr=True, ae_title="NODE").encode(HELD | {"SOPInstanceUID": "1.2.4"}))
    assert match.Rows == 512


@pytest.mark.parametrize(
    ("character_set", "name", "said"),
    [
        ("ISO_IR 100", "Buc^J\u00e9r\u00f4me", "ISO_IR 100"),
        ("ISO_IR 100", "\u5c71\u7530", "ISO_IR 192"),  # which Latin-1 cannot say
        ("ISO_IR 100", "Doe^John", ""),
        ("ISO_IR 144", "\u041b\u044e\u043a", "ISO_IR 144"),
        ("GB18030", "\u738b\u5c0f\u4e1c", "GB18030"),
        ("ISO_IR 192", "\u738b\u5c0f\u4e1c", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], HELD["PatientName"], "\\ISO 2022 IR 87"),
        (
            ["ISO 2022 IR 13", "ISO 2022 IR 87"],
            "\uff94\uff8f\uff80\uff9e^\uff80\uff9b\uff73=\u5c71\u7530^\u592a\u90ce",
            "ISO 2022 IR 13\\ISO 2022 IR 87",
        ),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9", "\\ISO 2022 IR 149"),
        (["", "ISO 2022 IR 149"], "\u0642\u0628\u0627\u0646\u064a", "ISO_IR 192"),
        ("NO_SUCH SET", "J\u00e9r\u00f4me", "ISO_IR 192"),
    ],
)
def test_the_querys_character_set_is_spoken_where_it_can_say_all(character_set: str | list[str], name: str, said: str) -> None:
    answers = Answers(asked(character_set), explicit_vr=True, ae_title="NODE")
    match = read(answers.encode(HELD | {"PatientName": name}))
    spoken = match.get("SpecificCharacterSet", "")
    assert ("\\".join(spoken) if not isinstance(spoken, str) else spoken) == said
    assert str(match.PatientName) == name


def test_a_list_of_failed_instances_of_any_length_can_be_read() -> None:
    for count in (0, 1, 2, 3000):
        uids = [f"1.2.3.{number}" for number in range(count)]
        for syntax in (ELE, IMPLICIT):
            found = read(failed_list(uids, explicit_vr=syntax == ELE), syntax)
            value = found.get("FailedSOPInstanceUIDList") or []
            assert ([value] if isinstance(value, str) else list(value)) == uids
