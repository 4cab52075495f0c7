"""Measurement groups of the report (PS3.16): TID 1411 for a lesion or an organ with a segment, TID 1410 for a lesion without
one, TID 1501 for a statement about the whole image.

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
from pydicom.sr.coding import Code as DicomCode

from dicomnode.domain.equipment import MANUFACTURER
from dicomnode.domain.findings import Classification, Findings, LabelMap, Lesion, Segment
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind, SrForm
from dicomnode.results.context import Context
from dicomnode.results.outlines import border, key_slice, lesion_outline, outlines
from dicomnode.results.seg import dicom_code, segment_numbers
from dicomnode.results.wording import capitalized, percent

LONG_AXIS = codes.SCT.LongAxis
SHORT_AXIS = codes.SCT.ShortAxis
VOLUME = codes.SCT.Volume
CERTAINTY = codes.DCM.CertaintyOfFinding
ATTENUATION = codes.DCM.AttenuationCoefficient
INTENSITY = codes.cid7469.MRSignalIntensity
MEAN = codes.SCT.Mean
STANDARD_DEVIATION = codes.SCT.StandardDeviation
COMMENT = DicomCode("121106", "DCM", "Comment")
LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right}

MILLILITRE = DicomCode("mL", "UCUM", "mL")
MILLIMETRE = DicomCode("mm", "UCUM", "mm")
PERCENT = DicomCode("%", "UCUM", "%")
INTENSITY_UNITS = {"[hnsf'U]": DicomCode("[hnsf'U]", "UCUM", "Hounsfield unit")}
NO_UNIT = DicomCode("1", "UCUM", "no units")

# Decimals written: finer than any model is right, coarse enough to be read.
ML_DECIMALS, MM_DECIMALS, INTENSITY_DECIMALS, PERCENT_DECIMALS = 3, 2, 1, 2


@dataclass(frozen=True, slots=True)
class Report:
    """What the groups of one report are made from. `affine` is None for a projection image."""

    context: Context
    findings: Findings
    image: Volume | Image2D
    segmentation: Dataset | None

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Voxel → LPS of a volume."""
        return self.image.affine if isinstance(self.image, Volume) else None

    @property
    def intensity_unit(self) -> DicomCode:
        """Unit of mean and standard deviation."""
        unit = self.image.unit if isinstance(self.image, Volume) else "1"
        return INTENSITY_UNITS.get(unit, NO_UNIT if unit in ("", "1") else DicomCode(unit, "UCUM", unit))

    def outline_of(self, lesion: Lesion) -> tuple[int, NDArray[np.float64]]:
        """(slice index, closed curve)."""
        affine = self.affine
        return lesion_outline(self.findings, lesion, np.eye(4) if affine is None else affine)


def all_groups(report: Report) -> list[Any]:
    """Statements first, then lesions; organs only where there is neither, so that the report is never empty."""
    findings = report.findings
    groups = [statement_group(report, one) for one in findings.classifications]
    groups += [lesion_group(report, one) for one in findings.lesions]
    if not groups and report.segmentation is not None:
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
    """The slice that stands for the whole image: of the most probable lesion, else the middle one."""
    findings = report.findings
    if findings.lesions:
        return key_slice(findings, max(findings.lesions, key=lambda one: one.probability))
    return len(report.context.sources.slice_headers) // 2


def key_slices(report: Report) -> list[int]:
    """Slices whose images the report leans on, ascending."""
    chosen = {shown_slice(report)} | {report.outline_of(one)[0] for one in report.findings.lesions}
    if not report.findings.lesions and not report.findings.classifications:
        chosen |= {_largest_slice(one, segment) for one, segment in organs(report.findings)}
    return sorted(chosen)


def statement_group(report: Report, one: Classification) -> Any:
    """TID 1501: finding, qualitative value, probability, algorithm; coordinates are the whole slice's border."""
    header = report.context.sources.slice_headers[shown_slice(report)]
    coordinates = _coordinates(report, shown_slice(report), border(int(header.Rows), int(header.Columns)))
    certainty = hd.sr.Measurement(
        name=CERTAINTY,
        value=round(one.probability * 100, PERCENT_DECIMALS),
        unit=PERCENT,
        algorithm_id=algorithm(report.context),
    )
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=report.context.uid(ResultKind.SR, "statement", one.name), identifier=one.name
        ),
        finding_type=dicom_code(one.finding),
        measurements=[certainty],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(dicom_code(one.finding), dicom_code(one.value_code))],
    )
    _draw(report, group, coordinates)
    _comment(group, _statement_text(report, one))
    return group


def _statement_text(report: Report, one: Classification) -> str:
    sizes = "".join(f" {segment.label}: {segment.volume_ml:.0f} ml." for _, segment in organs(report.findings))
    warnings = "".join(f" Note: {warning}." for warning in report.findings.warnings)
    model = report.context.model
    certainty = f"probability {percent(one.probability)} (threshold {percent(one.threshold)})"
    statement = f"{capitalized(one.name)}: {one.value}, {certainty}"
    return f"{report.context.notice}. AI {model.name} {model.version}: {statement}.{sizes}{warnings}"


def lesion_group(report: Report, lesion: Lesion) -> Any:
    """TID 1411, or TID 1410 where the lesion has no segment; tracked under the same identifiers as the segment."""
    segments = {(one.name, segment.number): segment for one in report.findings.label_maps for segment in one.segments}
    found = segments.get(lesion.segment) if lesion.segment else None
    index, curve = report.outline_of(lesion)
    finding = dicom_code(found.type) if found else codes.SCT.Lesion
    arguments: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=lesion.tracking_uid, identifier=lesion.tracking_id),
        "finding_type": finding,
        "finding_category": dicom_code(found.category) if found else None,
        "finding_sites": _sites(found, lesion.laterality),
        "algorithm_id": algorithm(report.context),
        "measurements": _lesion_measurements(report, lesion),
    }
    number = segment_numbers(report.findings).get(lesion.segment) if lesion.segment else None
    if number is not None and report.segmentation is not None:
        group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_referenced_segment(report, number), **arguments
        )
    else:
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_region(report, index, curve), **arguments
        )
    _draw(report, group, _coordinates(report, index, curve))
    _comment(group, lesion_text(report, lesion))
    return group


def lesion_text(report: Report, lesion: Lesion) -> str:
    """The lesion's comment: OHIF's panel shows it as the label and keeps it when it takes the outline over."""
    side = f" ({lesion.laterality})" if lesion.laterality else ""
    size = f"{lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f} mm"
    return (
        f"{lesion.label}{side}: AI volume {lesion.volume_ml:.2f} ml, "
        f"{size}, probability {percent(lesion.probability)}. {report.context.notice}."
    )


def _lesion_measurements(report: Report, lesion: Lesion) -> list[Any]:
    unit = report.intensity_unit
    name = ATTENUATION if unit in INTENSITY_UNITS.values() else INTENSITY
    return [
        hd.sr.Measurement(name=VOLUME, value=round(lesion.volume_ml, ML_DECIMALS), unit=MILLILITRE),
        hd.sr.Measurement(name=LONG_AXIS, value=round(lesion.long_axis_mm, MM_DECIMALS), unit=MILLIMETRE),
        hd.sr.Measurement(name=SHORT_AXIS, value=round(lesion.short_axis_mm, MM_DECIMALS), unit=MILLIMETRE),
        hd.sr.Measurement(name=name, value=round(lesion.mean, INTENSITY_DECIMALS), unit=unit, derivation=MEAN),
        hd.sr.Measurement(name=name, value=round(lesion.std, INTENSITY_DECIMALS), unit=unit, derivation=STANDARD_DEVIATION),
        hd.sr.Measurement(name=CERTAINTY, value=round(lesion.probability * 100, PERCENT_DECIMALS), unit=PERCENT),
    ]


def organ_group(report: Report, one: LabelMap, segment: Segment) -> Any:
    """TID 1411 with the volume alone."""
    number = segment_numbers(report.findings)[(one.name, segment.number)]
    uid = segment.tracking_uid or report.context.uid(ResultKind.SR, "organ", one.name, str(segment.number))
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=segment.tracking_id or segment.label),
        finding_type=dicom_code(segment.type),
        finding_category=dicom_code(segment.category),
        finding_sites=_sites(segment, ""),
        algorithm_id=algorithm(report.context),
        measurements=[hd.sr.Measurement(name=VOLUME, value=round(segment.volume_ml, ML_DECIMALS), unit=MILLILITRE)],
        referenced_segment=_referenced_segment(report, number),
    )
    index = _largest_slice(one, segment)
    _draw(report, group, _coordinates(report, index, outlines(one.labels[index] == segment.number)[0]))
    _comment(group, f"{segment.label}: AI volume {segment.volume_ml:.2f} ml. {report.context.notice}.")
    return group


def algorithm(context: Context) -> Any:
    """TID 4019, with the intended use where every reader of the group sees it."""
    return hd.sr.AlgorithmIdentification(
        name=context.model.name,
        version=context.model.version,
        parameters=[context.notice],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=context.model.manufacturer or MANUFACTURER,
    )


def _largest_slice(one: LabelMap, segment: Segment) -> int:
    return int(np.argmax([np.count_nonzero(labels == segment.number) for labels in one.labels]))


def _sites(segment: Segment | None, laterality: str) -> list[Any] | None:
    if segment is None or segment.anatomy is None:
        return None
    return [hd.sr.FindingSite(dicom_code(segment.anatomy), laterality=LATERALITY.get(laterality))]


def _referenced_segment(report: Report, number: int) -> Any:
    assert report.segmentation is not None  # noqa: S101 - callers ask for a segment only where there is an object
    return hd.sr.ReferencedSegment(
        sop_class_uid=report.segmentation.SOPClassUID,
        sop_instance_uid=report.segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=hd.sr.SourceSeriesForSegmentation(report.context.sources.series_instance_uid),
    )


def _frame_numbers(report: Report, index: int) -> list[int] | None:
    header = report.context.sources.slice_headers[index]
    return [report.context.sources.frame_numbers[index]] if int(header.get("NumberOfFrames") or 1) > 1 else None


def _region(report: Report, index: int, curve: NDArray[np.float64]) -> Any:
    header = report.context.sources.slice_headers[index]
    source = hd.sr.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, _frame_numbers(report, index))
    return hd.sr.ImageRegion(graphic_type="POLYLINE", graphic_data=curve, source_image=source)


def _coordinates(report: Report, index: int, curve: NDArray[np.float64]) -> Any:
    header = report.context.sources.slice_headers[index]
    source = hd.sr.SourceImageForMeasurement(header.SOPClassUID, header.SOPInstanceUID, _frame_numbers(report, index))
    item = hd.sr.CoordinatesForMeasurement("POLYLINE", curve, source)
    # highdicom says INFERRED FROM; for an image under SCOORD PS3.3 A.35.3.3.1.2 allows SELECTED FROM only.
    item.ContentSequence[0].RelationshipType = "SELECTED FROM"
    return item


def _draw(report: Report, group: Any, coordinates: Any) -> None:
    """Puts the outline under every number; highdicom refuses that in TID 1410 and 1411, so it is done afterwards."""
    if report.context.profile.sr_form is not SrForm.OHIF:
        return
    for item in group[0].ContentSequence:
        if item.ValueType == "NUM":
            item.ContentSequence = DicomSequence([*(item.get("ContentSequence") or []), coordinates])


def _comment(group: Any, text: str) -> None:
    group[0].ContentSequence.append(hd.sr.TextContentItem(name=COMMENT, value=text, relationship_type="CONTAINS"))
