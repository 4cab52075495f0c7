"""The same object, the same bytes; and bytes that survive a power cut.

highdicom fills in the time of building and random UIDs; `stamp` puts the job's time and derived UIDs in their place
(known to differ between two builds: creation, content, series and capture times, equipment's contribution time,
DimensionOrganizationUID).
"""

import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.results.documents import Document
from dicomnode.results.elements import elements_below
from dicomnode.results.equipment import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

BUILD_DATES = frozenset(
    {"InstanceCreationDate", "ContentDate", "SeriesDate", "DateOfSecondaryCapture", "PresentationCreationDate"}
)
BUILD_TIMES = frozenset(
    {"InstanceCreationTime", "ContentTime", "SeriesTime", "TimeOfSecondaryCapture", "PresentationCreationTime"}
)
STAMPED = frozenset(Tag(keyword) for keyword in (*BUILD_DATES, *BUILD_TIMES, "DimensionOrganizationUID"))
SOFTWARE_LIBRARY = "highdicom"


def stamp(dataset: Dataset, moment: datetime, derive: Callable[[str], str]) -> None:
    """Replaces all that building took from clock and chance. `derive` gives a UID for a name."""
    dataset.SeriesDate = moment.strftime("%Y%m%d")
    dataset.SeriesTime = moment.strftime("%H%M%S")
    for element in elements_below(dataset, STAMPED):
        _stamp_one(element, moment, derive)
    for item in dataset.get("ContributingEquipmentSequence", []):
        if item.get("ManufacturerModelName") == SOFTWARE_LIBRARY:
            item.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S%z")
    meta = dataset.file_meta
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _stamp_one(element: DataElement, moment: datetime, derive: Callable[[str], str]) -> None:
    if element.keyword in BUILD_DATES:
        element.value = moment.strftime("%Y%m%d")
    elif element.keyword in BUILD_TIMES:
        element.value = moment.strftime("%H%M%S")
    else:
        element.value = derive("dimensions")


def write(dataset: Dataset, kind: ResultKind, order: int, folder: Path, sources: tuple[str, ...]) -> ResultObject:
    """Writes a Part 10 file so that its bytes and its name are on disk when this returns."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    content = buffer.getbuffer()
    path = _write_durably(folder / f"{order:03d}-{kind.value}-{str(dataset.SOPInstanceUID)[-8:]}.dcm", content)
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        source_sop_instance_uids=sources,
        order=order,
        description=str(dataset.get("SeriesDescription", "")),
    )


def write_document(
    document: Document, study_instance_uid: str, kind: ResultKind, order: int, folder: Path, sources: tuple[str, ...]
) -> ResultObject:
    """The same for what is no Part 10 file; it has no SOP class and no transfer syntax."""
    return ResultObject(
        kind=kind,
        sop_class_uid="",
        sop_instance_uid=document.uid,
        series_instance_uid=document.series_uid,
        study_instance_uid=study_instance_uid,
        transfer_syntax_uid="",
        path=_write_durably(folder / f"{order:03d}-{kind.value}-{document.uid[-8:]}.json", document.content),
        sha256=hashlib.sha256(document.content).hexdigest(),
        size_bytes=len(document.content),
        source_sop_instance_uids=sources,
        order=order,
        description=document.description,
    )


def _write_durably(path: Path, content: bytes | memoryview) -> Path:
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return path


def sync_folder(folder: Path) -> None:
    """Makes the names of the written files durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
