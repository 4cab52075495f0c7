"""Reports on projection images: outlines in image coordinates, areas instead of volumes, boxes as groups of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Box, Findings, LabelMap, Segment
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Image2D, SpacingOrigin, read_only
from dicomnode.domain.profiles import SHIPPED, ResultKind
from dicomnode.results import build, verify
from dicomnode.results.tracking import boxes_tracked
from tests.results.cases import ABNORMAL, MODEL, NODULE, request_for, small_findings, small_series, volume_of
from tests.results.test_checks import put
from tests.results.test_report import concept, groups, texts

SEG_AND_SR = (ResultKind.SEG, ResultKind.SR)
BOXES = (Box("Fracture", (0, 5, 8), (1, 20, 31), 0.83), Box("Fracture", (0, 30, 2), (1, 40, 9), 0.41))


def radiograph(folder: Path, **changes: Any) -> tuple[Path, Image2D]:
    """A small DX image without frame of reference, which projection images need not have."""
    (path,) = small_series(
        folder,
        slices=1,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        Modality="DX",
        FrameOfReferenceUID=None,
        PositionReferenceIndicator=None,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        SliceThickness=None,
        PatientOrientation=["L", "F"],
        PhotometricInterpretation="MONOCHROME1",
        **changes,
    )
    source = pydicom.dcmread(path)
    spacing = tuple(float(value) for value in source.PixelSpacing) if "PixelSpacing" in source else None
    image = Image2D(
        pixels=read_only(source.pixel_array.astype(np.float32)),
        pixel_spacing_mm=spacing,  # type: ignore[arg-type]
        spacing_origin=SpacingOrigin.CALIBRATED if spacing else SpacingOrigin.NONE,
        frame=FrameRef(str(source.SOPInstanceUID), str(source.SOPClassUID)),
        headers=HeaderSummary("DX"),
        study_instance_uid=str(source.StudyInstanceUID),
        series_instance_uid=str(source.SeriesInstanceUID),
    )
    return path, image


def opacity(image: Image2D) -> Findings:
    """One segment that is no lesion."""
    labels = np.zeros((1, *image.pixels.shape), np.uint8)
    labels[0, 10:18, 20:33] = 1
    segment = Segment(1, "Opacity", ABNORMAL, NODULE, (255, 0, 0), 0.0, int(labels.sum()))
    return Findings(MODEL, (LabelMap("opacity", read_only(labels), (segment,)),))


def made_of(findings: Findings, path: Path, image: Image2D, folder: Path, profile: str = "ohif") -> tuple[list[Dataset], Any]:
    request = request_for([path], profiles=(SHIPPED[profile].without_fallbacks(),), kinds=SEG_AND_SR)
    objects = build(findings, image, [path], request, folder)
    verify(objects, findings, image, [path])
    return [pydicom.dcmread(one.path) for one in objects], objects


def outline_of(group: Dataset) -> np.ndarray:
    region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
    assert region.ContentSequence[0].RelationshipType == "SELECTED FROM"
    return np.array(region.GraphicData, float).reshape(-1, 2)


@pytest.mark.parametrize("profile", ["ohif", "archive"])
def test_a_detector_s_boxes_are_planar_groups_with_their_rectangles(tmp_path: Path, profile: str) -> None:
    path, image = radiograph(tmp_path / "dx")
    findings = Findings(MODEL, boxes=BOXES)
    (report,), _ = made_of(findings, path, image, tmp_path / "results", profile)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    found = groups(report)
    assert len(found) == 2
    for group, (box, tracked) in zip(found, boxes_tracked(findings, image.series_instance_uid), strict=True):
        (number,) = (item for item in group.ContentSequence if item.ValueType == "NUM")
        assert float(number.MeasuredValueSequence[0].NumericValue) == pytest.approx(box.probability * 100)
        outline = outline_of(group)
        assert outline.min(axis=0).tolist() == [box.start[2], box.start[1]]
        assert outline.max(axis=0).tolist() == [box.stop[2], box.stop[1]]
        assert outline[0].tolist() == outline[-1].tolist()
        assert [item.UID for item in group.ContentSequence if concept(item) == "112040"] == [tracked.uid]
        assert any(text.startswith("Fracture: probability") for text in texts(group))
        drawn = any(item.ValueType == "SCOORD" for item in number.get("ContentSequence", []))
        assert drawn == (profile == "ohif")


def test_a_volume_s_boxes_stand_for_themselves_only_where_no_lesion_does(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    box = Box("Nodule", (3, 5, 6), (6, 20, 22), 0.7)
    for nodules, expected in ((0, 2), (1, 2)):  # the statement, and the box or the lesion
        findings = replace(small_findings(volume, nodules=nodules), boxes=(box,))
        objects = build(findings, volume, paths, request_for(paths, kinds=SEG_AND_SR), tmp_path / str(nodules))
        verify(objects, findings, volume, paths)
        report = pydicom.dcmread(objects[-1].path)
        assert len(groups(report)) == expected
        assert any(text.startswith("Nodule: probability") for text in texts(report)) == (nodules == 0)


@pytest.mark.parametrize(
    ("spacing", "value", "unit"), [([0.5, 0.4], 104 * 0.2, "mm2"), (None, 104, "{pixels}")], ids=["calibrated", "no-spacing"]
)
def test_a_segment_on_a_projection_has_an_area_and_an_outline_never_a_volume(
    tmp_path: Path, spacing: list[float] | None, value: float, unit: str
) -> None:
    path, image = radiograph(tmp_path / "dx", PixelSpacing=spacing)
    (segmentation, _), _ = made_of(opacity(image), path, image, tmp_path / "archive", "archive")
    assert segmentation.PatientOrientation == ["L", "F"]
    measures = segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    assert (None if measures is None else list(measures[0].PixelSpacing)) == spacing
    (report,), _ = made_of(opacity(image), path, image, tmp_path / "results")
    assert "Segmentation: 0 of 1 segments shown: the destination's viewer shows none over a projection image." in texts(report)
    (group,) = groups(report)
    (number,) = (item for item in group.ContentSequence if item.ValueType == "NUM")
    assert concept(number) == "42798000"
    measured = number.MeasuredValueSequence[0]
    assert float(measured.NumericValue) == pytest.approx(value)
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == unit
    outline = outline_of(group)
    assert outline.min(axis=0) == pytest.approx([20, 10], abs=0.51)
    assert outline.max(axis=0) == pytest.approx([33, 18], abs=0.51)
    assert not any("volume" in text for text in texts(report))


def test_the_area_at_an_uncalibrated_detector_is_no_area_in_the_patient(tmp_path: Path) -> None:
    path, image = radiograph(tmp_path / "dx", PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.2])
    image = replace(image, pixel_spacing_mm=(0.2, 0.2), spacing_origin=SpacingOrigin.DETECTOR)
    (report,), _ = made_of(opacity(image), path, image, tmp_path / "results")
    assert any("no calibrated pixel spacing" in text for text in texts(report))


def test_the_image_library_of_a_projection_names_image_and_modality(tmp_path: Path) -> None:
    path, image = radiograph(tmp_path / "dx")
    (report,), _ = made_of(Findings(MODEL, boxes=BOXES), path, image, tmp_path / "results")
    library = next(item for item in report.ContentSequence if concept(item) == "111028")
    (entry,) = library.ContentSequence[0].ContentSequence
    assert entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.frame.sop_instance_uid
    assert [item.ConceptCodeSequence[0].CodeValue for item in entry.ContentSequence] == ["DX"]


def shift_a_box(dataset: Dataset) -> None:
    number = next(item for item in groups(dataset)[1].ContentSequence if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].NumericValue = "83"


@pytest.mark.parametrize(
    ("change", "words"), [(shift_a_box, "a number of Fracture differs"), (put("VerificationFlag", "VERIFIED"), "verified it")]
)
def test_a_wrong_report_on_boxes_is_held(tmp_path: Path, change: Any, words: str) -> None:
    import hashlib

    path, image = radiograph(tmp_path / "dx")
    findings = Findings(MODEL, boxes=BOXES)
    _, (one,) = made_of(findings, path, image, tmp_path / "results")
    dataset = pydicom.dcmread(one.path)
    change(dataset)
    changed = tmp_path / "changed.dcm"
    dataset.save_as(changed)
    content = changed.read_bytes()
    wrong = replace(one, path=changed, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    with pytest.raises(ResultCheckFailed, match=words):
        verify((wrong,), findings, image, [path])
