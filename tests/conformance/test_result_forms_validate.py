"""Every form that a profile can ask for passes dciodvfy and dcentvfy."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.findings import Findings
from dicomnode.domain.profiles import (
    SHIPPED,
    CharacterSet,
    OverLimit,
    Profile,
    ResultKind,
    SegForm,
    SrClass,
    WithoutFrameOfReference,
)
from dicomnode.domain.results import ResultObject
from tests.conformance.test_results_validate import ACCEPTED_WARNINGS, assert_one_study, assert_valid, built, pytestmark, run
from tests.results.cases import MODEL, small_findings, small_series, volume_of
from tests.results.test_projections import BOXES, opacity, radiograph

__all__ = ["pytestmark"]

SEG_AND_SR = (ResultKind.SEG, ResultKind.SR)
OHIF, ARCHIVE = SHIPPED["ohif"], SHIPPED["archive"]
NO_FRAME = {"FrameOfReferenceUID": None}
GERMAN = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"}
FORMS: dict[str, tuple[Profile, dict[str, Any]]] = {
    "archive and its fallback": (ARCHIVE, {}),
    "Comprehensive SR for a viewer": (replace(OHIF, sr_class=SrClass.COMPREHENSIVE), {}),
    "fractional": (replace(OHIF, seg_form=SegForm.FRACTIONAL), {}),
    "fractional, empty frames": (replace(OHIF, seg_form=SegForm.FRACTIONAL, keep_empty_frames=True), {}),
    "split": (replace(ARCHIVE, max_segments=3), {}),
    "left out": (replace(ARCHIVE, max_segments=3, over_limit=OverLimit.LEAVE_OUT), {}),
    "few library images": (replace(ARCHIVE, library_images=2), {}),
    "no library images": (replace(OHIF, library_images=0), {}),
    "no frame of reference": (OHIF, NO_FRAME),
    "no frame of reference, fractional": (replace(ARCHIVE, seg_form=SegForm.FRACTIONAL), NO_FRAME),
    "derived frame of reference": (
        replace(ARCHIVE, without_frame_of_reference=WithoutFrameOfReference.DERIVED),
        NO_FRAME,
    ),
    "UTF-8": (replace(ARCHIVE, character_set=CharacterSet.UTF_8), GERMAN),
}
# The validator is of 2022. Label Map Segmentation Storage came with Supplement 243 in 2024.
TOO_OLD_FOR_LABEL_MAPS = (
    r"Information Object Not found",
    # C.8.20.2.4 demands numbers from 1 on of BINARY and FRACTIONAL only; the background of a label map has number 0.
    r"SegmentNumber not monotonically increasing from one by one",
    # A reference to a segment is right for this class too (PS3.3 C.17.3.5).
    r"ReferencedSegmentNumber\(0062,000b\)> - Shall not be present for",
)


def made(folder: Path, profile: Profile, changes: dict[str, Any]) -> tuple[Sequence[ResultObject], list[Path]]:
    paths = small_series(folder / "ct", slices=6, **changes)
    volume = volume_of(paths)
    findings = small_findings(volume)
    return built(findings, volume, paths, folder / "results", profiles=(profile,), kinds=SEG_AND_SR), paths


@pytest.mark.parametrize("form", FORMS)
def test_segmentation_and_report_are_valid_in_every_form(tmp_path: Path, form: str) -> None:
    profile, changes = FORMS[form]
    objects, paths = made(tmp_path, profile, changes)
    assert_valid(objects)
    if profile.character_set is CharacterSet.SOURCE:  # dcentvfy compares bytes: the same name in two sets differs for it
        assert_one_study(objects, paths)


def test_label_maps_fail_only_where_the_validator_is_older_than_the_class(tmp_path: Path) -> None:
    objects, paths = made(tmp_path, replace(ARCHIVE, seg_form=SegForm.LABELMAP), {})
    assert len([one for one in objects if one.kind is ResultKind.SEG]) == 2
    for one in objects:
        for line in run("dciodvfy", "-new", one.path):
            assert any(re.search(pattern, line) for pattern in (*TOO_OLD_FOR_LABEL_MAPS, *ACCEPTED_WARNINGS)), line
    assert_one_study(objects, paths)


@pytest.mark.parametrize("profile", ["ohif", "archive"])
@pytest.mark.parametrize("spacing", [[0.5, 0.4], None], ids=["calibrated", "no-spacing"])
@pytest.mark.parametrize("what", ["boxes", "segment"])
def test_reports_on_projections_are_valid(tmp_path: Path, profile: str, spacing: list[float] | None, what: str) -> None:
    path, image = radiograph(tmp_path / "dx", PixelSpacing=spacing)
    findings = Findings(MODEL, boxes=BOXES) if what == "boxes" else opacity(image)
    assert_valid(built(findings, image, [path], tmp_path / "results", profiles=(SHIPPED[profile],), kinds=SEG_AND_SR))
