"""The same request and findings give the same bytes; anything else gives other UIDs; times are the hospital's own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomnode import imaging
from dicomnode.domain.findings import Findings, LabelMap
from dicomnode.domain.imaging import InstanceRef, SeriesRef, Volume, read_only
from dicomnode.domain.profiles import DEFAULT_KINDS
from dicomnode.domain.results import ResultKind
from dicomnode.domain.uids import has_mark
from dicomnode.engines import load_pipeline
from dicomnode.phantom import small_thorax, write_study
from dicomnode.results import build, context, verify
from dicomnode.results.context import digest_of
from dicomnode.results.writers import source_digest
from tests.engines.conftest import TINY
from tests.results.cases import request_for, small_findings, small_series, volume_of
from tests.results.conftest import Case, make_case


def test_two_builds_give_the_same_bytes_whenever_they_run_and_however_long_the_model_took(case: Case, tmp_path: Path) -> None:
    slower = replace(case.findings, timings_s={"forward": 99.0})
    again = make_case(case.paths, slower, case.volume, tmp_path)
    assert [one.sha256 for one in again.objects] == [one.sha256 for one in case.objects]
    assert [one.path.name for one in again.objects] == [one.path.name for one in case.objects]


def flipped_voxel(case: Case) -> Any:
    lungs = case.findings.label_maps[0]
    labels = np.array(lungs.labels)
    labels[5, 0, 0] = 1
    segments = (replace(lungs.segments[0], voxels=lungs.segments[0].voxels + 1), lungs.segments[1])
    return replace(case.findings, label_maps=(LabelMap("lungs", read_only(labels), segments), *case.findings.label_maps[1:]))


def other_probability(case: Case) -> Any:
    first = replace(case.findings.lesions[0], probability=0.9300001)
    return replace(case.findings, lesions=(first, *case.findings.lesions[1:]))


@pytest.mark.parametrize("change", [flipped_voxel, other_probability], ids=lambda one: one.__name__)
def test_other_findings_give_other_uids(case: Case, tmp_path: Path, change: Callable[[Case], Any]) -> None:
    made = make_case(case.paths, change(case), case.volume, tmp_path)
    assert not {one.sop_instance_uid for one in made.objects} & {one.sop_instance_uid for one in case.objects}


@pytest.mark.parametrize(
    "request_changes",
    [{"version": 2}, {"source_digests": {"a": "b"}}, {"pipeline_version": "1.1"}, {"node_timezone": "Asia/Tokyo"}],
    ids=lambda one: next(iter(one)),
)
def test_another_request_gives_other_uids(case: Case, tmp_path: Path, request_changes: dict[str, Any]) -> None:
    made = make_case(case.paths, case.findings, case.volume, tmp_path, **request_changes)
    assert not {one.sop_instance_uid for one in made.objects} & {one.sop_instance_uid for one in case.objects}


def test_all_uids_carry_our_mark_or_the_hospital_s_root(case: Case, tmp_path: Path) -> None:
    assert all(has_mark(one.sop_instance_uid) and has_mark(one.series_instance_uid) for one in case.objects)
    own = make_case(case.paths, case.findings, case.volume, tmp_path, uid_root="1.2.276.0.99")
    for one in own.objects:
        dataset = pydicom.dcmread(one.path)
        assert dataset.SOPInstanceUID.startswith("1.2.276.0.99.")
        assert dataset.SeriesInstanceUID.startswith("1.2.276.0.99.")


def test_no_time_of_building_is_left_in_a_file(case: Case) -> None:
    today = datetime.now(UTC).strftime("%Y%m%d")
    for one in case.objects:
        for element in pydicom.dcmread(one.path).iterall():
            if element.VR in ("DA", "DT", "TM"):
                assert not str(element.value).startswith(today), element.keyword


@pytest.mark.parametrize(
    ("moment", "zone", "offset", "expected"),
    [
        (datetime(2026, 3, 4, 20, 30, 5, tzinfo=UTC), "Asia/Tokyo", None, ("20260305", "053005")),
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), "Europe/Berlin", None, ("20260329", "013000")),
        (datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "Europe/Berlin", None, ("20260329", "033000")),
        (datetime(2026, 3, 4, 20, 30, 5, tzinfo=UTC), "Europe/Berlin", "+0900", ("20260305", "053005")),
        (datetime(2026, 3, 4, 2, 30, 5, tzinfo=UTC), "Europe/Berlin", "-0330", ("20260303", "230005")),
    ],
)
def test_times_are_local_to_the_source_or_else_to_the_node(
    tmp_path: Path, moment: datetime, zone: str, offset: str | None, expected: tuple[str, str]
) -> None:
    paths = small_series(tmp_path / "ct", TimezoneOffsetFromUTC=offset)
    volume = volume_of(paths)
    request = request_for(paths, content_time=moment, node_timezone=zone, kinds=(ResultKind.SR,))
    (one,) = build(small_findings(volume), volume, paths, request, tmp_path / "results")
    dataset = pydicom.dcmread(one.path)
    assert (dataset.ContentDate, dataset.ContentTime) == expected
    assert (dataset.InstanceCreationDate, dataset.InstanceCreationTime) == expected
    assert dataset.get("TimezoneOffsetFromUTC") == offset


def test_series_numbers_and_descriptions_are_their_own_for_each_kind(case: Case) -> None:
    numbers = {kind: {int(one.SeriesNumber) for one in case.of_kind(kind)} for kind in DEFAULT_KINDS}
    assert all(len(one) == 1 for one in numbers.values())
    in_order = [next(iter(numbers[kind])) for kind in DEFAULT_KINDS]
    assert in_order == list(range(in_order[0], in_order[0] + 3))
    assert 9000 <= in_order[0] <= 9893
    assert case.objects[0].description == "AI chest_ct 1.0 SEG - DEMO, not for clinical use"


def test_a_long_name_leaves_the_warning_in_the_description(case: Case, tmp_path: Path) -> None:
    model = replace(case.findings.model, name="a_very_long_name_of_a_pipeline_" * 3)
    made = make_case(case.paths, replace(case.findings, model=model), case.volume, tmp_path, kinds=(ResultKind.SR,))
    assert len(made.objects[0].description) == 64
    assert made.objects[0].description.endswith(" SR display - DEMO, not for clinical use")


def test_values_that_look_alike_have_different_digests() -> None:
    assert len({digest_of(value) for value in (("a", "b"), ("ab",), ("a,b",), 1, "1", 1.0, (1,), None, True)}) == 9


@pytest.mark.parametrize("changed", ["dicomnode 0.1.0 other code", "highdicom 9.9", "pillow 99.0"])
def test_what_another_version_writes_has_other_uids_though_its_bytes_may_be_the_same(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """A reader of the UID would else take new bytes for those that it has (PS3.5 9)."""
    name = changed.split(maxsplit=1)[0]
    others = tuple(changed if one.split(maxsplit=1)[0] == name else one for one in context.WRITERS)
    assert others != context.WRITERS
    monkeypatch.setattr(context, "WRITERS", others)
    made = make_case(case.paths, case.findings, case.volume, tmp_path)
    assert not {one.sop_instance_uid for one in made.objects} & {one.sop_instance_uid for one in case.objects}


def test_our_own_code_is_known_by_its_content_not_by_a_number_that_somebody_raises(tmp_path: Path) -> None:
    (tmp_path / "sc.py").write_text("width = 1.5\n")
    first = source_digest(tmp_path)
    assert source_digest(tmp_path) == first
    (tmp_path / "sc.py").write_text("width = 1.6\n")
    assert source_digest(tmp_path) != first
    # By what was loaded: on disk the code may have changed since.
    assert re.fullmatch(r"dicomnode \S+ [0-9a-f]{64}", context.WRITERS[0])


def test_names_drawn_with_another_font_are_other_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = small_series(tmp_path / "ct", slices=3)
    volume = volume_of(paths)
    uids = []
    for font in ("NotoSansCJK-Regular.ttc 19484784", "NotoSansCJK-Regular.ttc 20000000"):
        monkeypatch.setattr(context, "letters", lambda font=font: font)
        for drawn in (False, True):
            made = make_case(paths, None, volume, tmp_path / f"{font}{drawn}", kinds=(ResultKind.SC,), draw_identity=drawn)
            uids.append({one.sop_instance_uid for one in made.objects})
    assert uids[0] == uids[2]
    assert not uids[1] & uids[3]


REBUILD = """
import sys
from pathlib import Path
from dicomnode.engines import load_pipeline
from dicomnode.phantom import small_thorax, write_study
from dicomnode.results import build, verify
from tests.engines.conftest import TINY
from tests.results.cases import request_for, small_findings, volume_of

folder = Path(sys.argv[1])
paths = sorted((folder / "ct").glob("*.dcm"))
volume = volume_of(paths)
for one in build(small_findings(volume), volume, paths, request_for(paths, profiles=PROFILES), folder / sys.argv[2]):
    print(one.sop_instance_uid, one.sha256)
"""
EVERY_FORM = """
from dataclasses import replace
from dicomnode.domain.profiles import *
PROFILES = (SHIPPED["ohif"], *(replace(SHIPPED["archive"], name=form.value, seg_form=form) for form in SegForm))
"""


def test_another_process_builds_the_same_bytes_in_every_form(tmp_path: Path) -> None:
    small_series(tmp_path / "ct", slices=6)
    built = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", EVERY_FORM + REBUILD, str(tmp_path), f"results-{seed}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo" if seed == "1" else "America/Lima"},
        )
        built.append(done.stdout.splitlines())
    assert built[0] == built[1]
    assert len(built[0]) > 12


def test_a_model_in_bfloat16_finds_otherwise_and_its_results_have_other_uids(tmp_path: Path) -> None:
    paths = write_study(small_thorax(5), tmp_path / "ct")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    instances = tuple(
        InstanceRef(str(one.SOPInstanceUID), str(one.SOPClassUID), path) for one, path in zip(headers, paths, strict=True)
    )
    volume = imaging.load(SeriesRef(str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID), instances))
    assert isinstance(volume, Volume)
    pipeline = load_pipeline(TINY, device="cpu")
    pipeline._bfloat16 = True  # whether it pays on this machine is not the question
    low = pipeline.sidecar.exact.model_copy(update={"bfloat16": True})
    runs = {"fp32": pipeline.sidecar.exact, "fp32 again": pipeline.sidecar.exact, "bf16": low}
    objects = {}
    for name, rules in runs.items():
        found = pipeline._once(volume, {}, rules, lambda *_: None)
        assert isinstance(found, Findings)
        request = request_for(paths, kinds=(ResultKind.SEG, ResultKind.SR))
        objects[name] = build(found, volume, paths, request, tmp_path / name)
        verify(objects[name], found, volume, paths)
    uids = {name: {one.sop_instance_uid: one.sha256 for one in built} for name, built in objects.items()}
    assert uids["fp32"] == uids["fp32 again"]
    assert len(uids["bf16"]) == len(uids["fp32"]) == 2
    assert not uids["fp32"].keys() & uids["bf16"].keys()
