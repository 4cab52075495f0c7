""" "AI not run" is said, so that silence is never read as "nothing found"."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomnode.domain.findings import ModelIdentity
from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.domain.results import ResultKind
from dicomnode.results import build, verify
from dicomnode.results.equipment import device_uid
from tests.results.cases import request_for, small_series
from tests.results.test_report import groups, texts
from tests.results.test_summary_page import Written

REFUSAL = Refusal(
    RefusalCode.GAP,
    "one slice is missing between z -190.0 and -185.0 mm",
    "send the series again, complete",
    ("1.2.276.0.7230010.3.1.4.99.4",),
)
SAID = ("was not run", "This is not a negative result", "(gap)", REFUSAL.message, REFUSAL.remedy, "NOT FOR CLINICAL USE")


def test_a_refusal_gives_a_text_report_and_one_page_with_reason_and_remedy(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    objects = build(REFUSAL, None, paths, request_for(paths), tmp_path / "results")
    verify(objects, REFUSAL, None, paths)
    assert [one.kind for one in objects] == [ResultKind.SR, ResultKind.SC]
    assert all(" NOT RUN - DEMO, not for clinical use" in one.description for one in objects)
    report = pydicom.dcmread(objects[0].path)
    assert report.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert not groups(report)
    said = " ".join(texts(report))
    for words in SAID:
        assert words in said


@pytest.mark.parametrize(
    "code",
    [RefusalCode.GAP, RefusalCode.TILT, RefusalCode.OUT_OF_DISTRIBUTION, RefusalCode.PROCESSING_FAILED],
    ids=["gap", "unsupported geometry", "out of distribution", "failure"],
)
def test_each_reason_stands_in_report_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: RefusalCode) -> None:
    written = Written(monkeypatch)
    paths = small_series(tmp_path / "ct", slices=3)
    refusal = Refusal(code, "these images are of no use to it", "look at them")
    objects = build(refusal, None, paths, request_for(paths), tmp_path / "results")
    verify(objects, refusal, None, paths)
    report = " ".join(texts(pydicom.dcmread(objects[0].path)))
    for words in (report, written.words):
        assert "This is not a negative result: the images were not analysed by AI." in words
        assert "these images are of no use to it" in words.lower()
        assert f"({code.value})" in words
        assert "look at them" in words.lower()
        assert "NOT FOR CLINICAL USE" in words
    assert "AI NOT RUN" in written.words


def test_the_page_names_the_instances_that_the_refusal_names(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    objects = build(REFUSAL, None, paths, request_for(paths), tmp_path / "results")
    page = pydicom.dcmread(objects[1].path)
    assert [one.ReferencedSOPInstanceUID for one in page.SourceImageSequence] == list(REFUSAL.instances)
    assert page.BurnedInAnnotation == "NO"
    assert len(np.unique(page.pixel_array.reshape(-1, 3), axis=0)) > 20


def test_the_model_that_refused_is_named_where_the_request_knows_it(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    model = ModelIdentity("chest_ct", "1.0", "cd34" * 16, "dicomnode project", "", False)
    objects = build(REFUSAL, None, paths, request_for(paths, model=model, demonstration=False), tmp_path / "results")
    verify(objects, REFUSAL, None, paths)
    for one in objects:
        dataset = pydicom.dcmread(one.path)
        assert [item.DeviceUID for item in dataset.ContributingEquipmentSequence if "DeviceUID" in item] == [device_uid(model)]
        assert "DEMO" not in dataset.SeriesDescription


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("series", ["ct_chest_rider_0109", "pt_sts002_with_rtstruct", "objects/rtplan.dcm", "ct_head_ge_tilt"])
def test_sources_whose_geometry_was_refused_are_enough(test_data: Path, tmp_path: Path, series: str) -> None:
    source = test_data / series
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*.dcm"))
    studies = {str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID): path for path in paths}
    first = next(iter(studies))
    paths = [path for path in paths if pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID == first]
    refusal = Refusal(RefusalCode.MIXED_GEOMETRY, "two scan ranges lie in one series", "send each as a series of its own")
    objects = build(refusal, None, paths, request_for(paths), tmp_path)
    verify(objects, refusal, None, paths)
    received = pydicom.dcmread(paths[0], stop_before_pixels=True)
    for one in objects:
        dataset = pydicom.dcmread(one.path)
        assert dataset.StudyInstanceUID == received.StudyInstanceUID
        assert str(dataset.PatientID) == str(received.get("PatientID", ""))
        named = {
            (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
            for element in dataset.iterall()
            if element.keyword == "ReferencedSOPSequence"
            for item in element.value
        }
        assert named <= {(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in map(pydicom.dcmread, paths)}
