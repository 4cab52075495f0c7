"""Which attributes can be asked for, at which level and how (PS3.4 C.6.1.1, C.6.2.1). No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)


class Level(IntEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


UNIQUE_KEYS: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

# Of each level: what the index holds and can be matched and returned. In Study Root those of PATIENT belong to STUDY.
_KEYS: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: (
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
    ),
    Level.STUDY: (
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ReferringPhysicianName",
        "PatientAge",
        "TimezoneOffsetFromUTC",
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "SeriesInstanceUID",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "BodyPartExamined",
        "ProtocolName",
        "Laterality",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "Manufacturer",
        "ManufacturerModelName",
        "StationName",
        "InstitutionName",
        "FrameOfReferenceUID",
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: (
        "SOPInstanceUID",
        "SOPClassUID",
        "InstanceNumber",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "ImageType",
        "AcquisitionNumber",
        "AcquisitionDate",
        "AcquisitionTime",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "AvailableTransferSyntaxUID",
    ),
}
# Of a response rather than of an object (PS3.4 C.4.1.1.3.2).
OF_THE_ANSWER = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability", "SpecificCharacterSet"})


@dataclass(frozen=True, slots=True)
class Model:
    """An information model; `top`: its highest level."""

    top: Level


PATIENT_ROOT, STUDY_ROOT = Model(Level.PATIENT), Model(Level.STUDY)
MODELS: Mapping[str, Model] = {
    str(PatientRootQueryRetrieveInformationModelFind): PATIENT_ROOT,
    str(PatientRootQueryRetrieveInformationModelMove): PATIENT_ROOT,
    str(PatientRootQueryRetrieveInformationModelGet): PATIENT_ROOT,
    str(StudyRootQueryRetrieveInformationModelFind): STUDY_ROOT,
    str(StudyRootQueryRetrieveInformationModelMove): STUDY_ROOT,
    str(StudyRootQueryRetrieveInformationModelGet): STUDY_ROOT,
}
# SOP class → the right that a peer needs for it.
RIGHTS: Mapping[str, str] = {uid: "query" if uid.endswith(".1") else "retrieve" for uid in MODELS}
FIND_CLASSES = tuple(uid for uid, right in RIGHTS.items() if right == "query")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no DICOM keyword")
    return int(tag)


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that can be asked for. level: the highest one at which it can."""

    keyword: str
    tag: int
    vr: str
    level: Level


def _key(keyword: str, level: Level) -> Key:
    return Key(keyword, _tag(keyword), dictionary_VR(_tag(keyword)), level)


KEYS: Mapping[str, Key] = {keyword: _key(keyword, level) for level, keywords in _KEYS.items() for keyword in keywords}
KEYS_BY_TAG: Mapping[int, Key] = {key.tag: key for key in KEYS.values()}
ANSWER_KEYS: Mapping[str, Key] = {keyword: _key(keyword, Level.PATIENT) for keyword in OF_THE_ANSWER}
ANSWER_TAGS = frozenset(key.tag for key in ANSWER_KEYS.values())
