"""The demo's arithmetic; the demo itself, with the shipped model, is a journey."""

import math
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomnode.cli.demo_comparison import Found, Planted, found_in, pair_up, save_frames, sensible
from tests.cli.conftest import PIPELINES, type_command


def planted(x: float) -> Planted:
    return Planted((x, 0.0, 0.0), 10.0, 0.5)


def found(x: float) -> Found:
    return Found("Nodule", (x, 0.0, 0.0), 9.0, 0.4, 0.9)


def test_each_nodule_gets_its_nearest_lesion_once() -> None:
    pairs = pair_up([planted(0), planted(10)], [found(9), found(2), found(200)])
    assert [pair.distance_mm for pair in pairs] == [2.0, 1.0, None]
    assert pairs[2].planted is None
    assert sensible(pairs)


def test_a_missed_nodule_or_many_false_lesions_are_not_sensible() -> None:
    assert not sensible(pair_up([planted(0)], [found(13)]))
    assert not sensible(pair_up([planted(0)], [found(0), found(100), found(200), found(300)]))


def test_lesions_are_measured_in_the_objects_that_arrived(command: type_command, small_study: Path, tmp_path: Path) -> None:
    answer = command("infer", small_study, "--pipeline", PIPELINES / "tiny", "--out", tmp_path / "out", "--json")
    (run,) = answer.document["runs"]
    path = next(one["path"] for one in run["objects"] if one["kind"] == "SEG")
    lesions = {one["label"]: one for one in run["findings"]["lesions"]}
    measured = found_in(pydicom.dcmread(path), {})
    assert len(measured) == len(lesions)
    for one in measured:
        assert math.dist(one.center_mm, lesions[one.label]["center_mm"]) < 3.0  # a voxel of this coarse phantom
        assert one.volume_ml == pytest.approx(lesions[one.label]["volume_ml"], rel=0.02)
    capture = next(one["path"] for one in run["objects"] if one["kind"] == "SC")
    pictures = save_frames(Path(capture), tmp_path / "pictures")
    assert pictures
    assert np.all([path.stat().st_size > 1000 for path in pictures])


def test_a_folder_that_is_not_a_demos_is_left_alone(command: type_command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    answer = command("demo", "--out", tmp_path / "mine")
    assert answer.code == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()
