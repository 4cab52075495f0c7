"""MR, enhanced multi-frame and single-frame, through imaging into results: laid over the source, checked, valid for others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode import imaging
from dicomnode.domain.findings import Findings, HeatMap, LabelMap, Segment
from dicomnode.domain.imaging import Refusal, RefusalCode, Volume, read_only
from dicomnode.domain.profiles import DICOM_KINDS, SHIPPED, ResultKind
from dicomnode.results import build, verify
from tests.conformance.test_results_validate import assert_one_study, assert_valid, pytestmark
from tests.results.cases import ABNORMAL, MODEL, NODULE, lesion_of, request_for
from tests.results.enhanced import FIRST, FRAMES, NORMAL, SPACING, STEP_MM, enhanced_mr, item, stored

__all__ = ["pytestmark"]

BOTH = tuple(SHIPPED[name].without_fallbacks() for name in ("ohif", "archive"))
KINDS = (ResultKind.SEG, ResultKind.SR, ResultKind.SC)
GEOMETRY = ("PlaneOrientationSequence", "PixelMeasuresSequence")
VALUES = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
SHUFFLED = (4, 0, 8, 2, 6, 1, 3, 7, 5)
# A lesion that is symmetrical in no axis: corner and size (z, y, x).
CORNER, SIZE = (2, 9, 30), (4, 7, 11)


def findings_on(volume: Volume) -> Findings:
    """A lesion with its segment and a statement."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[tuple(slice(corner, corner + size) for corner, size in zip(CORNER, SIZE, strict=True))] = 1
    labels[CORNER[0], CORNER[1], CORNER[2]] = 0
    voxels = int(labels.sum())
    lesion = replace(lesion_of(volume, labels == 1, 1, 0.8), segment=("lesions", 1))
    segment = Segment(
        1, lesion.label, ABNORMAL, NODULE, (255, 90, 90), voxels * volume.voxel_ml, voxels,
        tracking_id=lesion.tracking_id, tracking_uid=lesion.tracking_uid,
    )  # fmt: skip
    return Findings(MODEL, (LabelMap("lesions", read_only(labels), (segment,)),), lesions=(lesion,))


def loaded(folder: Path) -> tuple[Volume | Refusal, list[Path]]:
    (series,) = imaging.scan([folder]).series
    image = imaging.load(series)
    assert isinstance(image, Volume | Refusal)
    return image, [one.path for one in series.instances]


def without_frame_of_reference(dataset: Dataset) -> None:
    del dataset.FrameOfReferenceUID


def bare(dataset: Dataset) -> None:
    """What highdicom and viewers like to find and the standard lets be absent or empty."""
    del dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    del dataset.BodyPartExamined
    dataset.StudyID = dataset.AccessionNumber = dataset.PatientBirthDate = ""


FORMS: dict[str, dict[str, object]] = {
    "all groups shared": {},
    "geometry in each frame": {"per_frame": GEOMETRY},
    "everything in each frame, frames shuffled": {"per_frame": (*GEOMETRY, *VALUES), "order": SHUFFLED},
    "stored from the far end": {"order": tuple(range(FRAMES))[::-1]},
    "no frame of reference": {"change": without_frame_of_reference},
    "no frame of reference, geometry in each frame, shuffled": {
        "change": without_frame_of_reference,
        "per_frame": GEOMETRY,
        "order": SHUFFLED,
    },
    "no window, no rescaling, no thickness": {"change": bare},
}


@pytest.mark.parametrize("form", FORMS)
def test_results_of_an_enhanced_mr_lie_on_its_frames_and_are_valid(tmp_path: Path, form: str) -> None:
    path = enhanced_mr(tmp_path / "mr" / "1.dcm", **FORMS[form])  # type: ignore[arg-type]
    volume, paths = loaded(tmp_path / "mr")
    assert isinstance(volume, Volume), volume
    findings = findings_on(volume)
    objects = build(findings, volume, paths, request_for(paths, kinds=KINDS, profiles=BOTH), tmp_path / "results")
    verify(objects, findings, volume, paths)
    assert [one.kind for one in objects][:3] == [ResultKind.SEG, ResultKind.SR, ResultKind.SR]
    assert_valid(objects)
    assert_one_study(objects, [path])
    assert_lesion_at_its_place(pydicom.dcmread(objects[0].path), [path])


def assert_lesion_at_its_place(segmentation: Dataset, paths: list[Path]) -> None:
    """By the source's own frames, without our volume: a SEG frame shows what was marked where the frame that it names lies."""
    sources = [pydicom.dcmread(path) for path in paths]
    places = {
        (source.SOPInstanceUID, number): round(
            float((np.array(frame.PlanePositionSequence[0].ImagePositionPatient) - FIRST) @ NORMAL / STEP_MM)
        )
        for source in sources
        for number, frame in enumerate(source.PerFrameFunctionalGroupsSequence, start=1)
    }
    seen = set()
    for frame, mask in zip(segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True):
        named = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = places[named.ReferencedSOPInstanceUID, int(named.ReferencedFrameNumber)]
        assert CORNER[0] <= place < CORNER[0] + SIZE[0]
        rows, columns = np.nonzero(mask)
        assert (rows.min(), rows.max() + 1) == (CORNER[1], CORNER[1] + SIZE[1])
        assert (columns.min(), columns.max() + 1) == (CORNER[2], CORNER[2] + SIZE[2])
        if "PlanePositionSequence" in frame:
            position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            np.testing.assert_allclose(position, FIRST + place * STEP_MM * NORMAL, atol=1e-3)
        seen.add(place)
    assert len(seen) == SIZE[0]
    assert ("FrameOfReferenceUID" in segmentation) == ("FrameOfReferenceUID" in sources[0])
    named_at_all = {one.ReferencedSOPInstanceUID for one in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named_at_all == {source.SOPInstanceUID for source in sources}


def test_an_enhanced_mr_in_two_objects_gets_one_set_of_results(tmp_path: Path) -> None:
    """A series may come as several multi-frame objects; highdicom takes one only."""
    enhanced_mr(tmp_path / "mr" / "1.dcm", order=range(5))
    enhanced_mr(tmp_path / "mr" / "2.dcm", order=range(5, FRAMES), number=2)
    volume, paths = loaded(tmp_path / "mr")
    assert isinstance(volume, Volume), volume
    heat = np.full(volume.shape, 60, np.uint8) + np.arange(FRAMES, dtype=np.uint8)[:, None, None]
    findings = replace(findings_on(volume), heatmaps=(HeatMap("activation", read_only(heat), 0.0, 1 / 255),))
    objects = build(findings, volume, paths, request_for(paths, kinds=DICOM_KINDS), tmp_path / "results")
    verify(objects, findings, volume, paths)
    assert {one.kind for one in objects} == set(DICOM_KINDS)
    assert_valid(objects)
    assert_one_study(objects, paths)
    assert_lesion_at_its_place(pydicom.dcmread(objects[0].path), paths)


def several(keyword: str, attribute: str, values: tuple[float, float]) -> Callable[[Dataset], None]:
    """The same places twice, told apart by one functional group."""

    def change(dataset: Dataset) -> None:
        for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            setattr(frame, keyword, item(**{attribute: values[index // FRAMES]}))
        pixels = np.frombuffer(dataset.PixelData, np.uint16).copy()
        pixels[pixels.size // 2 :] += 30  # frames of the same pixels would be copies
        dataset.PixelData = pixels.tobytes()

    return change


@pytest.mark.parametrize(
    ("keyword", "attribute", "values"),
    [
        ("MREchoSequence", "EffectiveEchoTime", (12.0, 90.0)),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 1000.0)),
    ],
    ids=["echoes", "b-values"],
)
def test_several_echoes_or_b_values_in_one_object_are_said_not_to_be_read(
    tmp_path: Path, keyword: str, attribute: str, values: tuple[float, float]
) -> None:
    order = (*range(FRAMES), *range(FRAMES))
    path = enhanced_mr(tmp_path / "mr" / "1.dcm", order=order, change=several(keyword, attribute, values))
    refusal, paths = loaded(tmp_path / "mr")
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.TEMPORAL
    objects = build(refusal, None, paths, request_for(paths, kinds=KINDS), tmp_path / "results")
    verify(objects, refusal, None, paths)
    assert [one.kind for one in objects] == [ResultKind.SR, ResultKind.SC]
    assert_valid(objects)
    assert_one_study(objects, [path])


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real file
def test_results_of_a_real_enhanced_mr_are_valid(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "objects" / "mr_enhanced_siemens_6frames.dcm"
    (series,) = imaging.scan([path]).series
    volume = imaging.load(series)
    assert isinstance(volume, Volume)
    findings = findings_on(volume)
    objects = build(findings, volume, [path], request_for([path], kinds=KINDS, profiles=BOTH), tmp_path)
    verify(objects, findings, volume, [path])
    assert_valid(objects)


def test_the_real_enhanced_mr_whose_frames_do_not_fit_together_is_said_not_to_be_read(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "objects" / "mr_enhanced_10frames.dcm"
    (series,) = imaging.scan([path]).series
    refusal = imaging.load(series)
    assert isinstance(refusal, Refusal)
    objects = build(refusal, None, [path], request_for([path], kinds=KINDS), tmp_path)
    verify(objects, refusal, None, [path])
    assert_valid(objects)


def test_the_generated_frames_are_what_they_say(tmp_path: Path) -> None:
    """Of the test's own source: places, spacing and values, as imaging reads them."""
    enhanced_mr(tmp_path / "mr" / "1.dcm", order=SHUFFLED)
    volume, _ = loaded(tmp_path / "mr")
    assert isinstance(volume, Volume)
    assert volume.spacing_mm == pytest.approx((STEP_MM, *SPACING), rel=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 3], FIRST, atol=1e-3)
    np.testing.assert_allclose(volume.pixels[3], stored(3) * 0.5)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real files
@pytest.mark.parametrize("name", ["mr_prostate_adc_ax", "mr_abdomen_haste_cor"])
def test_results_of_a_real_mr_series_are_valid(test_data: Path, tmp_path: Path, name: str) -> None:
    """Single-frame, oblique axial and coronal: every DICOM kind."""
    volume, paths = loaded(test_data / name)
    assert isinstance(volume, Volume), volume
    heat = np.full(volume.shape, 90, np.uint8)
    findings = replace(findings_on(volume), heatmaps=(HeatMap("activation", read_only(heat), 0.0, 1 / 255),))
    objects = build(findings, volume, paths, request_for(paths, kinds=DICOM_KINDS, profiles=BOTH), tmp_path)
    verify(objects, findings, volume, paths)
    assert {one.kind for one in objects} == set(DICOM_KINDS)
    assert_valid(objects)
    assert_one_study(objects, paths)
