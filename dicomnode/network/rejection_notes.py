"""Rejection notes as they travel: key object selections whose title says why (PS3.3 A.35.4, PS3.16 TID 2010 and CID 7011)."""

from datetime import datetime
from itertools import groupby
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER, MODEL_NAME
from dicomnode.domain.errors import CorruptInstance
from dicomnode.domain.rejection import REJECTIONS, NamedInstance, RejectionNote

# Patient and study are the rejected objects' own (PS3.3 C.7.1.1, C.7.2.1).
_COPIED = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_REQUIRED_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip

_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{family}" for family in ("1", "1.1", "2", "2.1", "4", "7", "7.2", "7.4", "66.4", "66.7")
)


def read_rejection_note(path: Path) -> RejectionNote | None:
    """What the note says; None for a key object selection that rejects nothing. Raises CorruptInstance."""
    try:
        document = dcmread(path)
        titles = [str(item.get("CodeValue", "")) for item in document.get("ConceptNameCodeSequence", ())]
        code = next((title for title in titles if title in REJECTIONS), None)
        if code is None:
            return None
        named = [
            NamedInstance(
                str(instance.ReferencedSOPClassUID), str(instance.ReferencedSOPInstanceUID), str(series.SeriesInstanceUID)
            )
            for study in document.get("CurrentRequestedProcedureEvidenceSequence", ())
            if study.get("StudyInstanceUID") == document.StudyInstanceUID
            for series in study.get("ReferencedSeriesSequence", ())
            for instance in series.get("ReferencedSOPSequence", ())
        ]
        return RejectionNote(code, str(document.StudyInstanceUID), tuple(named))
    except (InvalidDicomError, AttributeError, ValueError, OSError) as error:
        raise CorruptInstance(
            f"a key object selection cannot be read ({type(error).__name__})", "let its sender make it again"
        ) from error


def rejection_note(
    rejected: Dataset,
    note: RejectionNote,
    *,
    sop_instance_uid: str,
    series_instance_uid: str,
    at: datetime,
    description: str,
) -> FileDataset:
    """The note as a file's data set. `rejected`: one of the objects that it names; at: local, for its DA and TM."""
    document = FileDataset("", Dataset(), file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta.MediaStorageSOPClassUID = KeyObjectSelectionDocumentStorage
    document.file_meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    for keyword in _COPIED:
        if keyword in rejected:
            document[keyword] = rejected[keyword]
    for keyword in _REQUIRED_EMPTY:  # type 2
        if keyword not in document:
            setattr(document, keyword, "")
    document.SOPClassUID, document.SOPInstanceUID = KeyObjectSelectionDocumentStorage, sop_instance_uid
    document.Modality, document.SeriesInstanceUID, document.SeriesNumber = "KO", series_instance_uid, 9900
    document.SeriesDescription, document.InstanceNumber = description, 1
    document.ReferencedPerformedProcedureStepSequence = []
    document.Manufacturer, document.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    document.ContentDate, document.ContentTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    document.ContributingEquipmentSequence = [_equipment()]
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(note)]
    document.ValueType, document.ContinuityOfContent = "CONTAINER", "SEPARATE"
    document.ConceptNameCodeSequence = [_code(note.code, REJECTIONS[note.code])]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    document.ContentTemplateSequence = [template]
    document.ContentSequence = [_content(one) for one in note.named]
    return document


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _equipment() -> Dataset:
    """By it the loop guard knows the note again, should a PACS send it back (PS3.3 C.12.1.1.5)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    item.ContributionDescription = CONTRIBUTION_DESCRIPTION
    return item


def _evidence(note: RejectionNote) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = note.study_instance_uid
    study.ReferencedSeriesSequence = []
    for uid, members in groupby(sorted(note.named, key=_series_of), key=_series_of):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = [_reference(one) for one in members]
        study.ReferencedSeriesSequence.append(series)
    return study


def _series_of(one: NamedInstance) -> str:
    return one.series_instance_uid


def _reference(one: NamedInstance) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return item


def _content(one: NamedInstance) -> Dataset:
    """TID 2010: an SR or SEG is a COMPOSITE, an image an IMAGE."""
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE" if one.sop_class_uid in _IMAGES else "COMPOSITE"
    item.ReferencedSOPSequence = [_reference(one)]
    return item
