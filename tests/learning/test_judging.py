"""The second stage: candidates weighed by score, size, shape, density and slice spacing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dicomnode.engines.sidecar import read_sidecar
from dicomnode.learning.judging import Judged, fit_calibration, gather, write_calibration

BUNDLE = Path(__file__).parents[2] / "pipelines" / "chest_ct"


def test_small_candidates_in_thick_slices_need_a_better_score() -> None:
    rng = np.random.default_rng(3)
    count = 4000
    score, size, spacing = rng.normal(1, 1.5, count), rng.uniform(1.4, 3.2, count), rng.choice([1.5, 2.5, 5.0], count)
    logit = 1.2 * score + 2.0 * (size - 2.2) - 0.8 * (spacing - 2.5)
    real = rng.random(count) < 1 / (1 + np.exp(-logit))
    features = np.column_stack([score, size, rng.uniform(0.4, 1, count), rng.normal(0, 2, count), spacing])
    fitted = fit_calibration(Judged(features, real))
    assert fitted.slope == pytest.approx(1.2, abs=0.15)
    assert fitted.log_long_axis == pytest.approx(2.0, abs=0.3)
    assert fitted.slice_spacing == pytest.approx(-0.8, abs=0.1)
    assert abs(fitted.mean) < 0.1


def test_one_kind_of_candidates_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        fit_calibration(Judged(np.ones((5, 5)), np.ones(5, dtype=bool)))


def test_the_judgement_is_written_into_the_sidecar_and_nothing_else_changes(tmp_path: Path) -> None:
    bundle = tmp_path / "chest_ct"
    shutil.copytree(BUNDLE, bundle)
    before = read_sidecar(bundle)
    assert before.lesions is not None
    changed = before.lesions.calibration.model_copy(update={"slope": 1.25, "slice_spacing": -0.5})
    write_calibration(bundle, changed)
    after = read_sidecar(bundle)
    assert after.lesions is not None
    assert after.lesions.calibration == changed
    assert after.model_copy(update={"lesions": before.lesions}) == before


def test_every_candidate_of_a_scan_is_gathered_with_its_bare_score() -> None:
    judged = gather(BUNDLE, 1)
    assert judged.features.shape[1] == 5
    assert len(judged.features) == len(judged.real) > 0
    assert judged.real.any()
    assert set(judged.features[:, 4]) == {5.0}
