"""C-FIND (PS3.4 C.4.1) over what was received, asked by DCMTK's findscu and by pynetdicom."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from dicomnode.archive import ArchiveLimits
from dicomnode.network import associate
from dicomnode.network.contexts import UNCOMPRESSED
from tests.archive.holding import PATIENT_ROOT, STUDY_ROOT, Holding, find, identifier
from tests.receiving.reception import local_peer
from tests.receiving.samples import changed, ct

STUDIES = {
    "1.2.1": {"PatientID": "A1", "PatientName": "Doe^John", "StudyDate": "20240105", "StudyTime": "093000"},
    "1.2.2": {"PatientID": "A1", "PatientName": "Doe^John", "StudyDate": "20240106", "StudyTime": "140000"},
    "1.2.3": {"PatientID": "a1", "PatientName": "Roe^Jane", "StudyDate": "20240107", "StudyTime": "200000"},
    "1.2.4": {"PatientID": "", "PatientName": "Nobody", "StudyDate": "", "StudyTime": ""},
}


def image(study: str, series: str, number: int, **attributes: Any) -> Dataset:
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.{series}", "SOPInstanceUID": f"{study}.{series}.{number}"}
    return changed(ct(), InstanceNumber=number, **uids, **STUDIES[study], **attributes)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holding]:
    """Four studies of three patients: 1.2.1 with series of 3 CT and 1 MR, 1.2.2 with 2 CT, the others with 1."""
    one = Holding(tmp_path_factory.mktemp("archive"))
    one.take(
        *(image("1.2.1", "1", number, SeriesDescription="Thorax axial", AccessionNumber="X1") for number in (1, 2, 3)),
        image("1.2.1", "2", 1, Modality="MR", SeriesNumber=2, AccessionNumber="X1", ReferringPhysicianName="Referrer^Ann"),
        *(image("1.2.2", "1", number, AccessionNumber="X2") for number in (1, 2)),
        image("1.2.3", "1", 1, AccessionNumber="X3"),
        image("1.2.4", "1", 1, AccessionNumber="X4"),
    )
    yield one
    one.stop()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ["1.2.1", "1.2.2", "1.2.3", "1.2.4"]),
        ({"StudyInstanceUID": "1.2.2"}, ["1.2.2"]),
        ({"StudyInstanceUID": ["1.2.1", "1.2.3", "9.9"]}, ["1.2.1", "1.2.3"]),
        ({"PatientID": "A1"}, ["1.2.1", "1.2.2"]),
        ({"PatientID": "?1", "PatientName": "*jane*"}, ["1.2.3"]),
        ({"PatientName": "DOE^JOHN"}, ["1.2.1", "1.2.2"]),
        ({"StudyDate": "20240106-"}, ["1.2.2", "1.2.3"]),
        ({"StudyDate": "20240105-20240106", "StudyTime": "12-"}, ["1.2.2"]),
        ({"AccessionNumber": "X2"}, ["1.2.2"]),
        ({"AccessionNumber": "X*", "StudyDate": "-20240105"}, ["1.2.1"]),
        ({"ModalitiesInStudy": "MR"}, ["1.2.1"]),
        ({"ReferringPhysicianName": "Nobody"}, []),
        ({"PatientID": "B1"}, []),
    ],
)
def test_studies_are_found_by_what_is_asked(archive: Holding, keys: dict[str, Any], found: list[str]) -> None:
    wanted = {"StudyInstanceUID": "", **keys}
    assert sorted(match.StudyInstanceUID for match in archive.found("STUDY", **wanted)) == found


def test_findscu_is_told_all_that_a_study_list_shows(archive: Holding) -> None:
    keys = ["PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyTime", "StudyInstanceUID=1.2.1", "StudyID"]
    keys += ["ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "SOPClassesInStudy"]
    (match,) = archive.findscu("-S", *(word for key in ["QueryRetrieveLevel=STUDY", *keys] for word in ("-k", key)))
    assert (match.PatientName, match.PatientID, match.PatientBirthDate) == ("Doe^John", "A1", "19700101")
    assert (match.StudyDate, match.StudyTime, match.StudyID) == ("20240105", "093000", "1")
    assert list(match.ModalitiesInStudy) == ["CT", "MR"]
    assert (match.NumberOfStudyRelatedSeries, match.NumberOfStudyRelatedInstances) == (2, 4)
    assert match.SOPClassesInStudy == "1.2.840.10008.5.1.4.1.1.2"
    assert match.InstanceAvailability == "ONLINE"


def test_findscu_walks_from_the_patient_to_the_image(archive: Holding) -> None:
    def asked(level: str, *keys: str) -> list[Dataset]:
        return archive.findscu("-P", *(word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)))

    counts = ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances")
    patients = asked("PATIENT", "PatientID", "PatientName", *counts)
    assert [[str(one.PatientID), *(one[count].value for count in counts)] for one in patients] == [
        ["A1", 2, 3, 6],
        ["a1", 1, 1, 1],
    ]
    studies = asked("STUDY", "PatientID=A1", "StudyInstanceUID")
    assert [one.StudyInstanceUID for one in studies] == ["1.2.1", "1.2.2"]
    series = asked(
        "SERIES", "PatientID=A1", "StudyInstanceUID=1.2.1", "SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"
    )
    assert [(one.Modality, one.NumberOfSeriesRelatedInstances) for one in series] == [("CT", 3), ("MR", 1)]
    parents = ("PatientID=A1", "StudyInstanceUID=1.2.1", "SeriesInstanceUID=1.2.1.1")
    images = asked("IMAGE", *parents, "SOPInstanceUID", "InstanceNumber", "Rows", "SOPClassUID")
    assert [(one.SOPInstanceUID, one.InstanceNumber, one.Rows) for one in images] == [
        (f"1.2.1.1.{number}", number, 16) for number in (1, 2, 3)
    ]
    assert not asked("STUDY", "PatientID=a1", "StudyInstanceUID=1.2.1")


def test_series_and_images_are_narrowed_too(archive: Holding) -> None:
    series = archive.found("SERIES", StudyInstanceUID="1.2.1", SeriesInstanceUID="", SeriesDescription="Thorax*", Modality="")
    assert [one.SeriesInstanceUID for one in series] == ["1.2.1.1"]
    images = archive.found(
        "IMAGE", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="", InstanceNumber="2"
    )
    assert [one.SOPInstanceUID for one in images] == ["1.2.1.1.2"]
    listed = ["1.2.1.1.3", "1.2.1.1.1"]
    images = archive.found("IMAGE", StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID=listed)
    assert [one.SOPInstanceUID for one in images] == sorted(listed)


def test_a_key_that_is_not_supported_is_said_by_the_status(archive: Holding) -> None:
    matches, statuses = archive.answers("STUDY", StudyInstanceUID="1.2.1", PatientName="", StudyID="")
    assert statuses == [0xFF00, 0x0000]
    matches, statuses = archive.answers("STUDY", StudyInstanceUID="1.2.1", EthnicGroup="", Modality="MR")
    assert statuses == [0xFF01, 0x0000]
    assert "EthnicGroup" not in matches[0]


@pytest.mark.parametrize(
    ("level", "model", "keys", "status"),
    [
        ("", STUDY_ROOT, {"StudyInstanceUID": "1.2.1"}, 0xA900),
        ("PATIENT", STUDY_ROOT, {"PatientID": "A1"}, 0xA900),
        ("WORKLIST", STUDY_ROOT, {"StudyInstanceUID": "1.2.1"}, 0xA900),
        ("SERIES", STUDY_ROOT, {"SeriesInstanceUID": ""}, 0xA900),
        ("SERIES", STUDY_ROOT, {"StudyInstanceUID": ""}, 0xA900),
        ("SERIES", STUDY_ROOT, {"StudyInstanceUID": ["1.2.1", "1.2.2"]}, 0xA900),
        ("SERIES", STUDY_ROOT, {"StudyInstanceUID": "*"}, 0xA900),
        ("IMAGE", STUDY_ROOT, {"StudyInstanceUID": "1.2.1", "SOPInstanceUID": ""}, 0xA900),
        ("STUDY", PATIENT_ROOT, {"StudyInstanceUID": "1.2.1"}, 0xA900),
        ("STUDY", STUDY_ROOT, {"StudyDate": "yesterday"}, 0xA900),
    ],
)
def test_what_breaks_the_model_is_refused(archive: Holding, level: str, model: str, keys: dict[str, Any], status: int) -> None:
    assert archive.answers(level, model, **keys) == ([], [status])


def test_a_query_over_several_levels_has_to_be_agreed_on(archive: Holding) -> None:
    across = identifier("SERIES", SeriesInstanceUID="", Modality="", StudyDate="20240105-20240107", StudyTime="1200-1900")
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid, asked.service_class_application_information = STUDY_ROOT, b"\1\1\1\1\1"
    with associate(local_peer(archive.port), "VIEWER", [(STUDY_ROOT, UNCOMPRESSED)], roles=[asked]) as association:
        agreed = {item.sop_class_uid: item.service_class_application_information for item in _extended(association)}
        assert agreed == {STUDY_ROOT: b"\1\1\0\0\0"}, "relational queries, combined date and time; nothing else"
        matches, statuses = find(association, across, STUDY_ROOT)
    assert statuses[-1] == 0x0000
    assert sorted(match.SeriesInstanceUID for match in matches) == ["1.2.2.1"], "from the 5th, 12:00, to the 7th, 19:00"
    assert archive.answers("SERIES", SeriesInstanceUID="", Modality="") == ([], [0xA900])


def _extended(association: Any) -> list[SOPClassExtendedNegotiation]:
    return [item for item in association.acceptor.user_information if isinstance(item, SOPClassExtendedNegotiation)]


def test_more_matches_than_are_allowed_end_with_a_refusal(make_holding: Callable[..., Holding]) -> None:
    holding = make_holding(limits=ArchiveLimits(max_matches=2))
    first = ct()
    holding.take(first, changed(ct(), StudyInstanceUID=first.StudyInstanceUID), ct(), ct())
    matches, statuses = holding.answers("STUDY", StudyInstanceUID="")
    assert (len(matches), statuses) == (2, [0xFF00, 0xFF00, 0xA700])
    assert len(holding.found("STUDY", StudyInstanceUID=first.StudyInstanceUID)) == 1
