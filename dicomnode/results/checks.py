"""Reads back what was written and holds it against source and findings; what contradicts them must not leave the node.

Reading is done with pydicom and numpy, not with the library that wrote: a writer and a reader that share a mistake prove
nothing.
"""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER
from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.results.checks_others import check_bundle, check_map
from dicomnode.results.checks_required import check_required
from dicomnode.results.checks_seg import check_segmentation, expected_segments, type_expected
from dicomnode.results.checks_sr import check_report
from dicomnode.results.collector import collector_paused
from dicomnode.results.elements import elements_read_below
from dicomnode.results.source import Sources, read_sources

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
SAME_AS_SOURCE = (
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)
REPLACEMENT_CHARACTER = "\ufffd"
REFERENCED = Tag("ReferencedSOPInstanceUID")
# An earlier version; and ReferencedStudySequence and its like, the source's own, copied with the study (PS3.3 C.7.2.1).
ELSEWHERE = ("PredecessorDocumentsSequence", "ReferencedStudySequence", "ReferencedPatientSequence")
TEXTS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@collector_paused()
def verify(
    objects: Sequence[ResultObject], outcome: Findings | Refusal, image: Volume | Image2D | None, sources: Sequence[Path]
) -> None:
    """Raises ResultCheckFailed for the first contradiction between the written files, the source series and the outcome."""
    source = read_sources(sources, image)
    ours = {one.sop_instance_uid for one in objects}
    if len(ours) != len(objects):
        raise ResultCheckFailed("two results have the same UID", REMEDY)
    segments_left: dict[str, list[type_expected]] = {}  # by series: several instances hold them together
    for one in objects:
        content = _content(one)
        if one.kind is ResultKind.FHIR:
            if isinstance(outcome, Findings):
                check_bundle(content, outcome)
            continue
        dataset = pydicom.dcmread(BytesIO(content))
        _check_common(dataset, one, source)
        _check_references(dataset, one, source, ours)
        if not isinstance(outcome, Findings) or image is None:
            continue
        if one.kind is ResultKind.SEG:
            left = segments_left.setdefault(one.series_instance_uid, expected_segments(outcome))
            segments_left[one.series_instance_uid] = check_segmentation(dataset, left, image, source)
        elif one.kind is ResultKind.SR:
            check_report(dataset, outcome, image, source.series_instance_uid)
        elif one.kind is ResultKind.PARAMETRIC_MAP:
            check_map(dataset, outcome, source)
    if any(segments_left.values()):
        raise ResultCheckFailed(f"SEG lacks {sum(map(len, segments_left.values()))} segments of the findings", REMEDY)


def _content(one: ResultObject) -> bytes:
    try:
        content = one.path.read_bytes()
    except OSError as error:
        raise ResultCheckFailed(f"{one.kind} file cannot be read: {error.strerror}", "run the job again") from None
    if len(content) != one.size_bytes or hashlib.sha256(content).hexdigest() != one.sha256:
        raise ResultCheckFailed(f"{one.kind} file changed after it was written", "run the job again")
    return content


def _check_common(dataset: Dataset, one: ResultObject, source: Sources) -> None:
    names = {
        "SOPInstanceUID": one.sop_instance_uid,
        "SOPClassUID": one.sop_class_uid,
        "SeriesInstanceUID": one.series_instance_uid,
        "StudyInstanceUID": one.study_instance_uid,
    }
    for keyword, value in names.items():
        if str(dataset.get(keyword, "")) != value:
            raise ResultCheckFailed(f"{one.kind}: {keyword} is not what was recorded", REMEDY)
    check_required(dataset, one.kind)
    for keyword in SAME_AS_SOURCE:
        written, received = _text(dataset, keyword), _text(source.identity, keyword)
        if written != received:
            raise ResultCheckFailed(f"{one.kind}: {keyword} differs from the source's", REMEDY)
    if one.series_instance_uid == source.series_instance_uid:
        raise ResultCheckFailed(f"{one.kind} would go into the source series", REMEDY)
    equipment = dataset.get("ContributingEquipmentSequence", [])
    if not any(
        item.get("Manufacturer") == MANUFACTURER and item.get("ContributionDescription") == CONTRIBUTION_DESCRIPTION
        for item in equipment
    ):
        raise ResultCheckFailed(f"{one.kind} does not say that this node made it", REMEDY)


def _text(dataset: Dataset, keyword: str) -> str:
    """As text; PersonName without the trailing empty component groups that writers drop."""
    return str(dataset.get(keyword, "") or "").rstrip("=^ ")


def _check_references(dataset: Dataset, one: ResultObject, source: Sources, ours: set[str]) -> None:
    """Every instance that an object names must be among the sources, or be another object of the same set.

    At the same time: no text may hold what could not be read.
    """
    named: set[str] = set()
    elsewhere = [dataset.pop(keyword, None) for keyword in ELSEWHERE]
    for element in elements_read_below(dataset, (REFERENCED,), TEXTS):
        if element.tag == REFERENCED:
            named.add(str(element.value))
        elif REPLACEMENT_CHARACTER in str(element.value):
            raise ResultCheckFailed(
                f"{one.kind}: {element.keyword or element.tag} holds characters that could not be read",
                "check the source's character set",
            )
    for sequence in elsewhere:
        if sequence is not None:
            dataset[sequence.tag] = sequence
    unknown = named - source.headers_by_uid.keys() - ours
    if unknown:
        raise ResultCheckFailed(f"{one.kind} names {len(unknown)} instances that are not in the source series", REMEDY)
    # Delivery looks these up in the registry again just before the object leaves, without reading the object for it.
    unsaid = named - set(one.source_sop_instance_uids) - ours
    if unsaid:
        raise ResultCheckFailed(f"{one.kind} names {len(unsaid)} instances that are not recorded as its sources", REMEDY)
    images = any("Rows" in header for header in source.headers)
    if not named and (images or one.kind is not ResultKind.SC):
        raise ResultCheckFailed(f"{one.kind} names no source", REMEDY)
