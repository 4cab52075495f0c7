"""What receiving tells the registry about one durable instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Received:
    """One instance whose bytes are on disk, before its row is.

    path: relative to the store's root. sha256: of the data set as received (without preamble and file meta).
    pixel_digest: "" since contradictions are judged from the two files; rows of earlier versions hold one.
    attributes: indexed DICOM keywords → text values, multiple values joined by a backslash.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str
    pixel_digest: str
    size_bytes: int
    attributes: Mapping[str, str]
    calling_ae: str
    called_ae: str
    address: str
    association_key: str
    received_at: datetime


# What receiving keeps of each header for routing, series choice, explanation and C-FIND (PS3.4 C.6). Patient attributes
# never reach a log.
INDEXED_KEYWORDS: tuple[str, ...] = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "StudyDate",
    "StudyTime",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "TimezoneOffsetFromUTC",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "InstitutionName",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientIdentityRemoved",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ScanOptions",
    "SliceThickness",
    "ProtocolName",
    "SequenceName",
    "EchoTime",
    "RepetitionTime",
    "DiffusionBValue",
    "ConvolutionKernel",
    "StudyID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "Laterality",
    "ImagesInAcquisition",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "NumberOfSlices",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelSpacing",
    "RescaleType",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)
