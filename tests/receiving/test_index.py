"""What is kept of each header: found again by people who type it in their own script, and enough for routes and C-FIND."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import generate_uid

from dicomnode.domain.received import INDEXED_KEYWORDS
from dicomnode.domain.statuses import SUCCESS
from tests.peers.node import Node
from tests.receiving.reception import Reception, context, data_set_of
from tests.receiving.samples import CT, ELE, changed, ct, encoded, store, store_bytes

# Files of charsets/ that hold no object: their character sets stand in items of a sequence, which are not indexed.
WITHOUT_IDENTITY = {"chrSQEncoding.dcm", "chrSQEncoding1.dcm", "empty_charset.dcm"}

# PS3.4 Tables C.6-1 to C.6-5: what a C-FIND at each level asks for, as far as a header holds it. UIDs have columns.
C_FIND_KEYWORDS = {
    "PATIENT": ["PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"],
    "STUDY": [
        *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName", "PatientAge"),
        *("NumberOfStudyRelatedInstances", "Modality", "TimezoneOffsetFromUTC"),
    ],
    "SERIES": [
        *("Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "BodyPartExamined", "ProtocolName"),
        *("Laterality", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "Manufacturer", "StationName"),
    ],
    "IMAGE": ["InstanceNumber", "SOPClassUID", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "AcquisitionNumber"],
}


def send_as_itself(reception: Reception, path: Path) -> int:
    """C-STORE under the UIDs of the data set: some files name others in their File Meta Information."""
    header = dcmread(path, stop_before_pixels=True)
    with reception.associated(context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)) as association:
        return int(store_bytes(association, header.SOPClassUID, header.SOPInstanceUID, data_set_of(path)).Status)


@pytest.fixture(scope="module")
def charsets(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Iterator[Reception]:
    """A reception that was sent all files of charsets/."""
    with Reception(tmp_path_factory.mktemp("charsets")) as reception:
        for path in sorted((test_data / "charsets").glob("*.dcm")):
            if path.name not in WITHOUT_IDENTITY:
                assert send_as_itself(reception, path) == SUCCESS, path.name
        yield reception


@pytest.mark.parametrize(
    ("patient_id", "typed"),
    [
        ("SCSARAB", ["قباني", "قباني لنزار", "قباني^لنزار", "لنزار"]),
        ("SCSFREN", ["Buc^Jérôme", "buc jérôme", "JÉRÔME", "Je\u0301ro\u0302me"]),  # the last with combining accents
        ("SCSGERM", ["äneas", "ÄNEAS RÜDIGER", "Äneas*"]),
        ("SCSGREEK", ["Διονυσιος", "διονυσιος", "ΔΙΟΝΥΣΙΟΣ"]),
        ("H31EXAMPLE", ["yamada", "山田", "山田 太郎", "山田太郎", "山田*", "やまだ^たろう", "やまだたろう", "YAMADA*"]),
        ("H32EXAMPLE", ["ﾔﾏﾀﾞ", "ヤマダ", "ヤマダタロウ", "山田^太郎", "たろう"]),
        ("SCSHBRW", ["שרון", "דבורה", "שרון דבורה"]),
        (
            "I2EXAMPLE",
            ["hong", "洪", "洪吉洞", "홍길동", "홍^길동", "\u1112\u1169\u11bc"],
        ),  # the last in single letters, as some keyboards
        ("2008-4", ["やまだ", "やまだ たろう"]),
        ("2008-3", ["김희중", "김*"]),
        ("SCSRUSS", ["Люкceмбypг", "люкceмбypг"]),
        ("X1EXAMPLE", ["王小東", "王^小東", "wang xiaodong", "王*"]),
        ("X2EXAMPLE", ["王小东", "王 小东", "小东", "Wang^XiaoDong"]),  # GB18030
        ("arabic", ["Test-ص"]),
        ("cyrillic", ["test-дћ", "TEST-ДЋ"]),
        ("greek", ["test-θ"]),
        ("hebrew", ["Test-ד"]),
        ("latin2", ["TEST-ÉÜÄÖ"]),
        ("latin3", ["test-éüäöòĝİ"]),
        ("latin4", ["TEST-ÉÜÄÖĶ"]),
        ("latin5", ["éüäöòİ"]),
        ("shift-jis", ["Test-ДΘﾈ", "ДΘネ"]),
        ("tis-620", ["๛"]),
        ("utf8", ["ĝדصķћ", "Test-éüäöòДΘĝדصķћ๛ネİ"]),
        ("P22", ["testowy teste", "TESTOWY"]),
    ],
)
def test_names_are_found_as_people_type_them(charsets: Reception, patient_id: str, typed: list[str]) -> None:
    for text in typed:
        found = {study["patient_id"] for study in charsets.registry.studies(text)}
        assert patient_id in found, text
        assert len(found) <= 20, "everything is found"


@pytest.mark.parametrize("typed", ["山田花子", "王*西", "Διονυσος", "%", "_", "ץ", "Yamada=", "amada*"])
def test_what_nobody_is_called_finds_nobody(charsets: Reception, typed: str) -> None:
    assert charsets.registry.studies(typed) == []


def test_the_command_finds_names_in_any_script(tmp_path: Path, test_data: Path) -> None:
    node = Node(tmp_path / "node")
    with Reception(node.data_dir) as reception:  # whose database is the one of the node's settings
        for name in ("chrX2.dcm", "chrH31.dcm", "chrGreek.dcm"):
            assert send_as_itself(reception, test_data / "charsets" / name) == SUCCESS
    for typed, name in {
        "王小东": "Wang^XiaoDong=王^小东",
        "διονυσιος": "Διονυσιος",
        "やまだ": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    }.items():
        answer = node.command("studies", typed, "--json")
        assert answer.returncode == 0, answer.stderr
        assert [study["patient_name"] for study in json.loads(answer.stdout)["studies"]] == [name]
        assert name.split("=")[0].split("^")[0] in node.command("studies", typed).stdout


def test_one_study_of_two_patients_is_flagged_kept_apart_and_starts_nothing(reception: Reception) -> None:
    first = ct()
    other = changed(first, SOPInstanceUID=generate_uid(), PatientID="P-2", PatientName="Somebody^Else")
    renamed = changed(first, SOPInstanceUID=generate_uid(), PatientName="TEST^ADA^^ ")
    with reception.associated(context(CT, ELE)) as association:
        assert [store(association, image).Status for image in (first, renamed)] == [SUCCESS, SUCCESS]
        assert reception.registry.studies()[0]["held"] == "", "case and padding are no other patient"
        assert store(association, other).Status == SUCCESS
    (study,) = reception.registry.studies()
    assert (study["patient_id"], study["held"]) == ("P-1", "its instances name different patients")
    assert reception.known(other.SOPInstanceUID).attributes["PatientID"] == "P-2", "nothing is merged"
    assert reception.kept_data_set(other.SOPInstanceUID) == encoded(other)
    assert [conflict["kind"] for conflict in reception.registry.explain("S1")["conflicts"]] == ["identity"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", C_FIND_KEYWORDS)
def test_what_c_find_asks_for_is_indexed(level: str) -> None:
    assert [keyword for keyword in C_FIND_KEYWORDS[level] if keyword not in INDEXED_KEYWORDS] == []


VALUES = {
    "DA": "20260102",
    "TM": "101112",
    "IS": 3,
    "DS": 1.5,
    "AS": "043Y",
    "US": 4,
    "FD": 87.5,
    "UI": "1.2.3",
    "SH": "+0100",
}


def test_all_that_is_indexed_is_read_from_a_header(reception: Reception) -> None:
    image = ct(SpecificCharacterSet="ISO_IR 192")
    expected = {}
    for keyword in INDEXED_KEYWORDS:
        if keyword not in image:
            setattr(image, keyword, VALUES.get(dictionary_VR(keyword), "4"))
        value = image[keyword].value
        expected[keyword] = "\\".join(str(one) for one in (value if isinstance(value, MultiValue) else [value]))
    with reception.associated(context(CT, ELE)) as association:
        assert store(association, image).Status == SUCCESS
    assert reception.known(image.SOPInstanceUID).attributes == expected
