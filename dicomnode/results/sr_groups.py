"""Measurement groups of the report (PS3.16): TID 1411 for what has a segment in a volume, TID 1410 for what has an outline
only (a lesion without segment, a box, anything on a projection image), TID 1501 for a statement about the whole image.

For a viewer every number carries an outline: OHIF 3.13 blanks the page of a report in which one group has no coordinates.
"""

from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes

from dicomnode.domain.equipment import MANUFACTURER
from dicomnode.domain.findings import Box, Classification, Findings, LabelMap, Lesion, Segment
from dicomnode.domain.imaging import Image2D, SpacingOrigin, Volume
from dicomnode.domain.profiles import SrForm
from dicomnode.results import sr_terms as terms
from dicomnode.results.context import Context
from dicomnode.results.equipment import facts_of
from dicomnode.results.outlines import key_slice, lesion_outline, outlines
from dicomnode.results.seg import dicom_code
from dicomnode.results.seg_plan import SegPlan
from dicomnode.results.tracking import Tracked, boxes_tracked, segment_tracked, statement_tracked
from dicomnode.results.wording import capitalized, percent

type_curve = NDArray[np.float64]

NOTE_PLACE = (0.02, 0.8)  # shares of the width and the height: below most of the patient, above what viewers write there


@dataclass(frozen=True, slots=True)
class Report:
    """What the groups of one report are made from. `segmentations`: the instances that `plan` says, none if none was made."""

    context: Context
    findings: Findings
    image: Volume | Image2D
    plan: SegPlan
    segmentations: tuple[Dataset, ...]

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Voxel → LPS of a volume, None for a projection image."""
        return self.image.affine if isinstance(self.image, Volume) else None

    @property
    def series_instance_uid(self) -> str:
        """Of the source."""
        return self.context.sources.series_instance_uid

    @property
    def for_viewer(self) -> bool:
        """Whether a viewer must be able to draw it."""
        return self.context.profile.sr_form is SrForm.OHIF

    def outline_of(self, lesion: Lesion) -> tuple[int, type_curve]:
        """(slice index, closed curve)."""
        affine = self.affine
        return lesion_outline(self.findings, lesion, np.eye(4) if affine is None else affine)


def all_groups(report: Report) -> list[Any]:
    """Statements first, then lesions and boxes; organs only where there is none of these, so that no report is empty."""
    findings = report.findings
    groups = [statement_group(report, one) for one in findings.classifications]
    groups += [lesion_group(report, one) for one in findings.lesions]
    groups += [box_group(report, box, tracked) for box, tracked in boxes_tracked(findings, report.series_instance_uid)]
    if not groups:
        groups = [organ_group(report, one, segment) for one, segment in organs(findings)]
    return groups


def organs(findings: Findings) -> list[tuple[LabelMap, Segment]]:
    """Segments with voxels that are no lesion's."""
    taken = {lesion.segment for lesion in findings.lesions}
    return [
        (one, segment)
        for one in findings.label_maps
        for segment in one.segments
        if segment.voxels > 0 and (one.name, segment.number) not in taken
    ]


def shown_slice(report: Report) -> int:
    """The slice that stands for the whole image: of the most probable lesion or box, else the middle one."""
    findings = report.findings
    if findings.lesions:
        return key_slice(findings, max(findings.lesions, key=lambda one: one.probability))
    if findings.boxes:
        return _middle(max(findings.boxes, key=lambda one: one.probability))
    return len(report.context.sources.slice_headers) // 2


def key_slices(report: Report) -> list[int]:
    """Slices whose images the report leans on, ascending."""
    findings = report.findings
    chosen = {shown_slice(report)} | {report.outline_of(one)[0] for one in findings.lesions}
    chosen |= {_middle(box) for box, _ in boxes_tracked(findings, report.series_instance_uid)}
    if not (findings.lesions or findings.classifications or findings.boxes):
        chosen |= {_largest_slice(one, segment) for one, segment in organs(findings)}
    return sorted(chosen)


def statement_group(report: Report, one: Classification) -> Any:
    """TID 1501: finding, qualitative value, probability, algorithm. A viewer gets a point at the edge to write it beside.

    The slice's border, which it speaks of, OHIF listed as a measured region of the whole slice (its area, a maximum of
    "-Infinity HU") and wrote the words beside it, outside the picture.
    """
    index = shown_slice(report)
    header = report.context.sources.slice_headers[index]
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(
            report, statement_tracked(report.findings, report.series_instance_uid, one), terms.VIEWER_NOTE
        ),
        finding_type=dicom_code(one.finding),
        measurements=[terms.certainty(one.probability, algorithm(report.context))],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(dicom_code(one.finding), dicom_code(one.value_code))],
    )
    point = np.array([NOTE_PLACE]) * (int(header.Columns), int(header.Rows))
    return _finished(report, group, index, point, _statement_text(report, one))


def _statement_text(report: Report, one: Classification) -> str:
    volume = isinstance(report.image, Volume)
    sizes = "".join(f" {segment.label}: {segment.volume_ml:.0f} ml." for _, segment in organs(report.findings) if volume)
    warnings = "".join(f" Note: {warning}." for warning in report.findings.warnings)
    model = report.context.model
    certainty = f"probability {percent(one.probability)} (threshold {percent(one.threshold)})"
    statement = f"{capitalized(one.name)}: {one.value}, {certainty}"
    # The statement first: OHIF's panel shows two lines of it.
    return f"{statement}. {report.context.notice}. AI {model.name} {model.version}.{sizes}{warnings}"


def lesion_group(report: Report, lesion: Lesion) -> Any:
    """TID 1411, or TID 1410 where the lesion has no segment; tracked under the same identifiers as the segment."""
    segments = {(one.name, segment.number): segment for one in report.findings.label_maps for segment in one.segments}
    found = segments.get(lesion.segment) if lesion.segment else None
    index, curve = report.outline_of(lesion)
    arguments: dict[str, Any] = {
        "tracking_identifier": _tracking(report, Tracked(lesion.tracking_id, lesion.tracking_uid)),
        "finding_type": dicom_code(found.type) if found else codes.SCT.Lesion,
        "finding_category": dicom_code(found.category) if found else None,
        "finding_sites": _sites(report, found, lesion.laterality),
        "algorithm_id": algorithm(report.context),
        "measurements": _lesion_measurements(report, lesion),
    }
    group = _region_group(report, lesion.segment, index, curve, arguments)
    return _finished(report, group, index, curve, lesion_text(report, lesion))


def lesion_text(report: Report, lesion: Lesion) -> str:
    """The lesion's comment: OHIF's panel shows two lines of it as the label and keeps it when it takes the outline over."""
    side = f" ({lesion.laterality})" if lesion.laterality else ""
    size = f"{lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f} mm"
    volume = f"AI volume {lesion.volume_ml:.2f} ml, " if isinstance(report.image, Volume) else "AI "
    certainty = percent(lesion.probability)
    first = f" {certainty}" if report.for_viewer else ""
    return f"{lesion.label}{side}{first}: {volume}{size}, probability {certainty}. {report.context.notice}."


def _lesion_measurements(report: Report, lesion: Lesion) -> list[Any]:
    unit = terms.intensity_unit(report.image.unit if isinstance(report.image, Volume) else "1")
    name = terms.ATTENUATION if unit in terms.INTENSITY_UNITS.values() else terms.INTENSITY
    mean, deviation = (round(value, terms.INTENSITY_DECIMALS) for value in (lesion.mean, lesion.std))
    long_axis, short_axis = (round(value, terms.MM_DECIMALS) for value in (lesion.long_axis_mm, lesion.short_axis_mm))
    numbers = [
        hd.sr.Measurement(name=terms.LONG_AXIS, value=long_axis, unit=terms.MILLIMETRE),
        hd.sr.Measurement(name=terms.SHORT_AXIS, value=short_axis, unit=terms.MILLIMETRE),
        hd.sr.Measurement(name=name, value=mean, unit=unit, derivation=terms.MEAN),
        hd.sr.Measurement(name=name, value=deviation, unit=unit, derivation=terms.STANDARD_DEVIATION),
        terms.certainty(lesion.probability),
    ]
    if isinstance(report.image, Volume):  # a projection image has no volumes
        volume = round(lesion.volume_ml, terms.ML_DECIMALS)
        numbers.insert(0, hd.sr.Measurement(name=terms.VOLUME, value=volume, unit=terms.MILLILITRE))
    return numbers


def box_group(report: Report, box: Box, tracked: Tracked) -> Any:
    """TID 1410: a detector's box with its probability, on its middle slice."""
    index, curve = _middle(box), box_outline(box)
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(report, tracked),
        referenced_region=_region(report, index, curve),
        finding_type=codes.SCT.Lesion,
        algorithm_id=algorithm(report.context),
        measurements=[terms.certainty(box.probability)],
    )
    text = f"{box.label}: probability {percent(box.probability)}. {report.context.notice}."
    return _finished(report, group, index, curve, text)


def box_outline(box: Box) -> type_curve:
    """Its closed rectangle in image coordinates (column, row): pixel n reaches from n to n + 1 (PS3.3 C.18.6.1.1)."""
    (top, left), (bottom, right) = box.start[1:], box.stop[1:]
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64)


def _middle(box: Box) -> int:
    return (box.start[0] + box.stop[0] - 1) // 2


def organ_group(report: Report, one: LabelMap, segment: Segment) -> Any:
    """The segment's size alone: its volume (TID 1411), or its area on a projection image (TID 1410)."""
    index = _largest_slice(one, segment)
    curve = outlines(one.labels[index] == segment.number)[0]
    number, text = _size(report.image, segment)
    arguments: dict[str, Any] = {
        "tracking_identifier": _tracking(report, segment_tracked(report.findings, report.series_instance_uid, one, segment)),
        "finding_type": dicom_code(segment.type),
        "finding_category": dicom_code(segment.category),
        "finding_sites": _sites(report, segment, ""),
        "algorithm_id": algorithm(report.context),
        "measurements": [number],
    }
    group = _region_group(report, (one.name, segment.number), index, curve, arguments)
    return _finished(report, group, index, curve, f"{segment.label}: AI {text}. {report.context.notice}.")


def _size(image: Volume | Image2D, segment: Segment) -> tuple[Any, str]:
    """Measurement and words. Area in mm² only where the spacing is the patient's: at the detector all is magnified."""
    if isinstance(image, Volume):
        volume = round(segment.volume_ml, terms.ML_DECIMALS)
        return (
            hd.sr.Measurement(name=terms.VOLUME, value=volume, unit=terms.MILLILITRE),
            f"volume {segment.volume_ml:.2f} ml",
        )
    if image.pixel_spacing_mm is not None and image.spacing_origin is SpacingOrigin.CALIBRATED:
        area = segment.voxels * image.pixel_spacing_mm[0] * image.pixel_spacing_mm[1]
        value = round(area, terms.AREA_DECIMALS)
        return hd.sr.Measurement(name=terms.AREA, value=value, unit=terms.SQUARE_MILLIMETRE), f"area {area:.0f} mm2"
    return (
        hd.sr.Measurement(name=terms.AREA, value=segment.voxels, unit=terms.PIXELS),
        f"area {segment.voxels} pixels, no calibrated pixel spacing",
    )


def algorithm(context: Context) -> Any:
    """TID 4019, with the intended use and the model card's facts where every reader of the group sees them."""
    return hd.sr.AlgorithmIdentification(
        name=context.model.name,
        version=context.model.version,
        parameters=[context.notice, *facts_of(context.model)],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=context.model.manufacturer or MANUFACTURER,
    )


def _region_group(
    report: Report, segment: tuple[str, int] | None, index: int, curve: type_curve, arguments: dict[str, Any]
) -> Any:
    """TID 1411 on a segment that was made of a volume, else TID 1410 on the outline."""
    place = report.plan.places().get(segment) if segment and isinstance(report.image, Volume) else None
    if place is not None and report.segmentations:
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_referenced_segment(report, *place), **arguments
        )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=_region(report, index, curve), **arguments)


def _tracking(report: Report, tracked: Tracked, tool: str = terms.VIEWER_TOOL) -> Any:
    identifier = tool if report.for_viewer else tracked.identifier
    return hd.sr.TrackingIdentifier(uid=tracked.uid, identifier=identifier)


def _largest_slice(one: LabelMap, segment: Segment) -> int:
    return int(np.argmax([np.count_nonzero(labels == segment.number) for labels in one.labels]))


def _sites(report: Report, segment: Segment | None, laterality: str) -> list[Any] | None:
    """Where the segment says that it is (a lobe where the model knows it); else the region that was examined, with its side."""
    side = terms.LATERALITY.get(laterality)
    if segment is not None and segment.anatomy is not None:
        return [hd.sr.FindingSite(dicom_code(segment.anatomy), laterality=side)]
    region = terms.REGIONS.get(str(report.context.sources.headers[0].get("BodyPartExamined") or "").upper())
    return [hd.sr.FindingSite(region, laterality=side)] if side and region else None


def _referenced_segment(report: Report, instance: int, number: int) -> Any:
    segmentation = report.segmentations[instance]
    return hd.sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=hd.sr.SourceSeriesForSegmentation(report.series_instance_uid),
    )


def _frame_numbers(report: Report, index: int) -> list[int] | None:
    header = report.context.sources.slice_headers[index]
    return [report.context.sources.frame_numbers[index]] if int(header.get("NumberOfFrames") or 1) > 1 else None


def _region(report: Report, index: int, curve: type_curve) -> Any:
    header = report.context.sources.slice_headers[index]
    source = hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, _frame_numbers(report, index))
    return hd.sr.ImageRegion(graphic_type="POLYLINE", graphic_data=curve, source_image=source)


def _coordinates(report: Report, index: int, curve: type_curve) -> Any:
    header = report.context.sources.slice_headers[index]
    source = hd.sr.SourceImageForMeasurement(header.SOPClassUID, header.SOPInstanceUID, _frame_numbers(report, index))
    item = hd.sr.CoordinatesForMeasurement("POINT" if len(curve) == 1 else "POLYLINE", curve, source)
    # highdicom says INFERRED FROM; for an image under SCOORD PS3.3 A.35.3.3.1.2 allows SELECTED FROM only.
    item.ContentSequence[0].RelationshipType = "SELECTED FROM"
    return item


def _finished(report: Report, group: Any, index: int, curve: type_curve, comment: str) -> Any:
    """With the comment, and for a viewer the outline under every number, which highdicom refuses in TID 1410 and 1411."""
    content = group[0].ContentSequence
    if report.for_viewer:
        coordinates = _coordinates(report, index, curve)
        for item in content:
            if item.ValueType == "NUM":
                item.ContentSequence = DicomSequence([*(item.get("ContentSequence") or []), coordinates])
    content.append(hd.sr.TextContentItem(name=terms.COMMENT, value=comment, relationship_type="CONTAINS"))
    return group
