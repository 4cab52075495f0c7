"""`bench inference` from end to end on a bundle that needs no time, and what its figures are held to."""

import json
import shutil
from pathlib import Path

import pytest

from dicomnode.bench.inference import InferencePlan, inference
from dicomnode.bench.inference_goals import goals
from dicomnode.bench.measuring import Row
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.domain.errors import UsageError

TINY = Path(__file__).parents[1] / "pipelines" / "tiny"


def say(_what: str, _share: float) -> None:
    pass


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The tiny bundle, whose own postprocessing comes back to the source grid too."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    steps = config["postprocessing"]["transforms"]
    steps[:] = [one for one in steps if one["_target_"] != "SaveImaged"]
    inverse = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    steps.insert(1, {**inverse, "nearest_interp": False, "to_tensor": True})
    path.write_text(json.dumps(config))
    return folder


def test_every_subject_is_measured_and_says_what_the_script_says(bundle: Path) -> None:
    report = inference(InferencePlan(rounds=2, slices=24, memory_slices=0, size=128, bundle=bundle, device="cpu"), say)
    document = json.loads(json.dumps(report.as_json()))
    by_key = {(row["case"], row["subject"], row["unit"]): row["rounds"] for row in document["rows"]}
    for speed in ("exact", "fast"):
        for step in ("decode", "preprocess", "forward", "postprocess"):
            for who in ("ours", "naive"):
                assert len(by_key[speed, f"{who}: {step}", "s"]) == 2
        assert document["ratios"][f"{speed}/naive"] > 0
        # The script masks no body and splits no lungs; with three filters for a network that is worth a little.
        assert by_key[speed, "ours", "Dice to the script"][0] > 0.8
        for who in ("ours", "naive"):
            assert 0 < by_key[speed, who, "Dice to the phantom"][0] < 1
        assert min(by_key["24 slices", speed, "MB peak"]) > 50
    assert document["notes"]["bfloat16_units"] in {"AMX", "AVX512", "none"}
    assert document["notes"]["run at exact"]["precision"] == "float32"
    assert {goal["goal"] for goal in document["goals"]} >= {"exact/naive", "fast/naive", "exact: MB for 300 slices"}


def row(case: str, subject: str, unit: str, value: float) -> Row:
    return Row(case, subject, unit, (value,))


@pytest.mark.parametrize(("units", "least"), [("AMX", 8.0), ("AVX512", 4.5), ("none", 4.5)])
def test_fast_is_held_to_what_the_processor_can(units: str, least: float) -> None:
    judged = {
        goal.name: goal for goal in goals([], {"fast/naive": 5.0}, {"device": "cpu", "bfloat16_units": units}, slices=100)
    }
    assert judged["fast/naive"].bound == least
    assert judged["fast/naive"].met is (units != "AMX")


def test_everything_but_the_forward_pass_counts_for_100_slices_and_on_a_cpu() -> None:
    rows = [row("exact", "ours", "s but for forward", 1.8), row("300 slices", "exact", "MB peak", 1499.0)]
    for device, met in (("cpu", True), ("cuda", None)):
        judged = {goal.name: goal for goal in goals(rows, {}, {"device": device, "bfloat16_units": "none"}, slices=200)}
        rest = judged["exact: s per 100 slices but for forward"]
        assert rest.measured == pytest.approx(0.9)
        assert rest.met is met
        assert judged["exact: MB for 300 slices"].met
        assert judged["exact on a GPU: whole step / forward"].met is None


def test_who_cannot_take_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no subject 'slow'"):
        inference(InferencePlan(subjects=("slow",)), say)
    with pytest.raises(MeasurementFailed, match="exact ended: "):
        inference(InferencePlan(1, 8, 0, 64, "cpu", tmp_path, subjects=("exact",)), say)
