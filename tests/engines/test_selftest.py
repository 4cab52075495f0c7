"""Fast is used only where it agreed with exact, on this machine and on an image that came."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicomnode.domain.findings import Classification, Code, Findings, LabelMap, Lesion, ModelIdentity
from dicomnode.domain.imaging import Refusal, read_only
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.engines.selftest import Proof, Proofs, compared, pooled_dice
from dicomnode.engines.sidecar import RunRules
from dicomnode.phantom import small_thorax
from tests.engines.conftest import TINY, as_volume

PHANTOM = small_thorax(7)
VOLUME = as_volume(PHANTOM.hu, PHANTOM.affine)


def pipeline(folder: Path | None, fast: RunRules) -> Pipeline:
    loaded = load_pipeline(TINY, device="cpu", proofs=folder)
    loaded.sidecar = loaded.sidecar.model_copy(update={"fast": fast})
    return loaded


def run(loaded: Pipeline) -> Findings:
    found = loaded.run(VOLUME, speed="fast")
    assert not isinstance(found, Refusal)
    return found


def test_the_first_image_is_computed_both_ways_and_later_ones_fast(tmp_path: Path) -> None:
    loaded = pipeline(tmp_path, RunRules(whole_volume_divisor=8))
    first, second = run(loaded), run(loaded)
    assert (first.run["speed"], second.run["speed"]) == ("fast", "fast")
    assert first.run["self-test"].startswith("passed: Dice ")
    assert "self_test" in first.timings_s
    assert "self_test" not in second.timings_s
    next_process = pipeline(tmp_path, RunRules(whole_volume_divisor=8))
    assert "self_test" not in run(next_process).timings_s  # it was remembered
    assert "self_test" in run(pipeline(None, RunRules(whole_volume_divisor=8))).timings_s


def test_a_model_whose_fast_way_says_something_else_runs_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = pipeline(tmp_path, RunRules(crop_margin_mm=0.0, whole_volume_divisor=16))
    network = loaded._bundle.network
    plainly = network.forward
    # As InstanceNorm does: another window, another answer.
    monkeypatch.setattr(network, "forward", lambda image: plainly(image * (1 if image.shape[2:] == (96, 96, 96) else 0.8)))
    exact = loaded.run(VOLUME)
    assert isinstance(exact, Findings)
    for _ in range(2):
        found = run(loaded)
        assert found.run["speed"] == "exact"
        assert found.run["self-test"].startswith("failed: ")
        assert np.array_equal(found.label_maps[0].labels, exact.label_maps[0].labels)


def test_nothing_is_proved_where_both_ways_are_one() -> None:
    assert "self-test" not in run(pipeline(None, RunRules())).run


def _findings(
    mask: np.ndarray, *, probability: float = 0.9, value: str = "present", lesions_ml: tuple[float, ...] = ()
) -> Findings:
    code = Code("1", "99", "x")
    lesion = Lesion("N", "N", "1.2", (0, 0, 0), 1, 1, 1, 0, 0, 0, 0, 0.9, "left")
    return Findings(
        model=ModelIdentity("m", "1", "d", "me", "tests", demonstration=True),
        label_maps=(LabelMap("lungs", read_only(mask.astype(np.uint8)), ()),),
        lesions=tuple(replace(lesion, volume_ml=volume) for volume in lesions_ml),
        classifications=(Classification("nodule", code, value, code, probability, 0.5),),
    )


def test_what_counts_as_agreement() -> None:
    mask = np.zeros((10, 20, 20), dtype=bool)
    mask[2:8, 4:16, 4:16] = True
    less = mask.copy()
    less[2, 4:16, 4] = False  # 12 of 864 voxels
    much_less = mask.copy()
    much_less[2] = False
    exact = _findings(mask, lesions_ml=(3.0, 0.2))
    assert pooled_dice(exact, exact) == 1.0
    assert compared(exact, _findings(less, lesions_ml=(3.1,))).passed  # a lesion below 1 ml may come and go
    assert not compared(exact, _findings(much_less, lesions_ml=(3.0,))).passed
    assert "lesions" in compared(exact, _findings(mask)).words
    assert "absent" in compared(exact, _findings(mask, value="absent", lesions_ml=(3.0,))).words
    assert not compared(exact, _findings(mask, probability=0.7, lesions_ml=(3.0,))).passed
    assert pooled_dice(_findings(mask & False), _findings(mask & False)) == 1.0


def test_verdicts_are_kept_by_model_and_machine(tmp_path: Path) -> None:
    Proofs(tmp_path, "digest", "AMX").write(Proof(passed=True, words="Dice 1"))
    assert Proofs(tmp_path, "digest", "AMX").read() == Proof(passed=True, words="Dice 1")
    assert Proofs(tmp_path, "digest", "AVX2").read() is None
    assert Proofs(tmp_path, "another", "AMX").read() is None
    next(tmp_path.iterdir()).write_text("{")
    assert Proofs(tmp_path, "digest", "AMX").read() is None
