"""Reads the numbers of a written report and holds them against the findings."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Classification, Findings, Lesion, Segment
from dicomnode.domain.imaging import Image2D, SpacingOrigin, Volume
from dicomnode.results.tracking import boxes_tracked, segment_tracked, statement_tracked

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
MEASUREMENT_GROUP, TRACKING_IDENTIFIER, TRACKING_UID = "125007", "112039", "112040"
VOLUME, LONG_AXIS, SHORT_AXIS, CERTAINTY, AREA = "118565006", "103339001", "103340004", "111012", "42798000"
MEAN, STANDARD_DEVIATION, DERIVATION = "373098007", "386136009", "121401"
# Half of the last decimal that is written (sr_terms), and the limits of binary fractions.
TOLERANCES = {
    VOLUME: 0.0006,
    LONG_AXIS: 0.006,
    SHORT_AXIS: 0.006,
    MEAN: 0.06,
    STANDARD_DEVIATION: 0.06,
    CERTAINTY: 0.006,
    AREA: 0.006,
}
VIEWERS_TOOLS = "Cornerstone3DTools@"  # a display form's Tracking Identifier names the tool that draws it


@dataclass(frozen=True, slots=True)
class _Expected:
    """One group of the report."""

    label: str
    identifier: str
    numbers: dict[str, float]
    statement: Classification | None = None


def check_report(dataset: Dataset, findings: Findings, image: Volume | Image2D, series_instance_uid: str) -> None:
    """Raises ResultCheckFailed unless the report holds every lesion, box and statement with its numbers, and no other group.

    Organs stand in it only where there is none of these. A volume that is not that of the segment contradicts the SEG.
    """
    _check_volumes(findings, image)
    expected = _expected(findings, image, series_instance_uid)
    for group in _groups(dataset):
        uid = _value_of(group, TRACKING_UID)
        if uid not in expected:
            raise ResultCheckFailed("SR holds a measurement group that the findings do not", REMEDY)
        _check_group(group, expected.pop(uid))
    if expected:
        raise ResultCheckFailed(f"SR lacks {len(expected)} of the findings", REMEDY)
    if dataset.VerificationFlag != "UNVERIFIED":
        raise ResultCheckFailed("SR claims that a person verified it", REMEDY)


def _check_volumes(findings: Findings, image: Volume | Image2D) -> None:
    """Reported volumes against the voxels that the segmentation was held to."""
    if not isinstance(image, Volume):
        return
    segments = {(one.name, segment.number): segment for one in findings.label_maps for segment in one.segments}
    reported = [(one.label, one.volume_ml, segments.get(one.segment)) for one in findings.lesions if one.segment]
    if not (findings.lesions or findings.classifications or findings.boxes):
        reported = [(segment.label, segment.volume_ml, segment) for segment in segments.values()]
    for label, volume_ml, found in reported:
        if found is None or abs(volume_ml - found.voxels * image.voxel_ml) > TOLERANCES[VOLUME]:
            raise ResultCheckFailed(f"SR: the volume of {label} is not that of its segment", REMEDY)


def _expected(findings: Findings, image: Volume | Image2D, series_instance_uid: str) -> dict[str, _Expected]:
    found: dict[str, _Expected] = {}
    for statement in findings.classifications:
        tracked = statement_tracked(findings, series_instance_uid, statement)
        numbers = {CERTAINTY: statement.probability * 100}
        found[tracked.uid] = _Expected(statement.name, tracked.identifier, numbers, statement)
    for lesion in findings.lesions:
        found[lesion.tracking_uid] = _Expected(lesion.label, lesion.tracking_id, _numbers_of(lesion, image))
    for box, tracked in boxes_tracked(findings, series_instance_uid):
        found[tracked.uid] = _Expected(box.label, tracked.identifier, {CERTAINTY: box.probability * 100})
    if not found:
        for one in findings.label_maps:
            for segment in one.segments:
                if segment.voxels > 0:
                    tracked = segment_tracked(findings, series_instance_uid, one, segment)
                    found[tracked.uid] = _Expected(segment.label, tracked.identifier, _size_of(segment, image))
    return found


def _numbers_of(lesion: Lesion, image: Volume | Image2D) -> dict[str, float]:
    numbers = {
        LONG_AXIS: lesion.long_axis_mm,
        SHORT_AXIS: lesion.short_axis_mm,
        MEAN: lesion.mean,
        STANDARD_DEVIATION: lesion.std,
        CERTAINTY: lesion.probability * 100,
    }
    return numbers | {VOLUME: lesion.volume_ml} if isinstance(image, Volume) else numbers


def _size_of(segment: Segment, image: Volume | Image2D) -> dict[str, float]:
    if isinstance(image, Volume):
        return {VOLUME: segment.volume_ml}
    if image.pixel_spacing_mm is not None and image.spacing_origin is SpacingOrigin.CALIBRATED:
        return {AREA: segment.voxels * image.pixel_spacing_mm[0] * image.pixel_spacing_mm[1]}
    return {AREA: segment.voxels}


def _check_group(group: Dataset, expected: _Expected) -> None:
    identifier = _value_of(group, TRACKING_IDENTIFIER)
    if identifier != expected.identifier and not identifier.startswith(VIEWERS_TOOLS):
        raise ResultCheckFailed(f"SR: tracking identifier of {expected.label} differs from the findings", REMEDY)
    written = _numbers(group)
    if written.keys() != expected.numbers.keys() or any(
        abs(written[code] - value) > TOLERANCES[code] for code, value in expected.numbers.items()
    ):
        raise ResultCheckFailed(f"SR: a number of {expected.label} differs from the findings", REMEDY)
    statement = expected.statement
    if statement is not None and _value_of(group, statement.finding.value) != statement.value_code.value:
        raise ResultCheckFailed(f"SR: {statement.name} has another value than the findings", REMEDY)


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        if _name(child) == MEASUREMENT_GROUP:
            yield child
        yield from _groups(child)


def _numbers(group: Dataset) -> dict[str, float]:
    """Concept → value; statistics of an intensity by the concept of their derivation."""
    numbers = {}
    for child in group.ContentSequence:
        if child.ValueType == "NUM":
            derivation = next((one for one in child.get("ContentSequence", []) if _name(one) == DERIVATION), None)
            code = _name(child) if derivation is None else str(derivation.ConceptCodeSequence[0].CodeValue)
            numbers[code] = float(child.MeasuredValueSequence[0].NumericValue)
    return numbers


def _value_of(group: Dataset, concept: str) -> str:
    for child in group.ContentSequence:
        if _name(child) == concept:
            if child.ValueType == "CODE":
                return str(child.ConceptCodeSequence[0].CodeValue)
            return str(child.get("TextValue") or child.get("UID") or "")
    return ""


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
