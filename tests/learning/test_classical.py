"""Classical models: what scikit-learn trained is what NumPy computes, and figures come from patients that were left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.engines.arrays import METHODS, probabilities, read_arrays
from dicomnode.learning.class_figures import multiclass_figures
from dicomnode.learning.classical import Cases, How, Method, figures, fit, save

CLASSES = ("head", "chest", "abdomen")


def cases(spread: float = 1.0) -> Cases:
    rng = np.random.default_rng(3)
    numbers = np.arange(90) % 3
    rows = (numbers[:, None] * 4.0 + rng.normal(0, spread, (90, 6))).astype(np.float32)
    rows[:, 5] = rng.normal(0, 1000, 90)  # says nothing, loudly
    return Cases(rows, tuple(CLASSES[one] for one in numbers), tuple(f"patient {one // 3}" for one in range(90)))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_survives_its_file_and_gives_probabilities(method: Method, tmp_path: Path) -> None:
    known = cases()
    arrays = fit(known, CLASSES, How(method, columns=(0, 1, 2, 3, 4)))
    save([arrays], tmp_path / "model.safetensors")
    read: dict[str, Any] = {
        name.removeprefix("0."): value for name, value in read_arrays(tmp_path / "model.safetensors").items()
    }
    found = np.array([probabilities(read, row) for row in known.rows])
    assert np.allclose(found.sum(axis=1), 1)
    assert np.mean([CLASSES[one] == label for one, label in zip(found.argmax(axis=1), known.labels, strict=True)]) > 0.95
    again = fit(known, CLASSES, How(method, columns=(0, 1, 2, 3, 4)))
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    flat = probabilities({**read, "temperature": np.array(4.0)}, known.rows[0])
    assert flat.max() <= found[0].max() + 1e-9


def test_the_arrays_of_a_forest_say_what_scikit_learn_says() -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    known = cases(3.0)
    arrays = fit(known, CLASSES, How("forest"))
    scaled = (known.rows.astype(np.float64) - arrays["center"]) / arrays["scale"]
    model = ExtraTreesClassifier(60, min_samples_leaf=2, class_weight="balanced", random_state=0)
    model.fit(scaled, [CLASSES.index(one) for one in known.labels])
    mine = np.array([probabilities(arrays, row) for row in known.rows])
    assert np.allclose(mine, model.predict_proba(scaled), atol=1e-3)


def test_figures_rest_on_patients_that_were_left_out() -> None:
    told = figures(cases(), CLASSES, How("linear"), folds=5)
    assert told["cases"] == 90
    assert told["accuracy"] > 0.95
    rng = np.random.default_rng(1)
    noise = Cases(rng.normal(size=(90, 6)).astype(np.float32), cases().labels, cases().groups)
    assert figures(noise, CLASSES, How("tree"), folds=5)["accuracy"] < 0.6  # a model that saw them would name them all


def test_recall_precision_and_f1_of_each_class() -> None:
    told = multiclass_figures(["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "b", "c"])
    assert told["accuracy"] == 0.75
    assert told["classes"]["a"] == {"cases": 3, "recall": 0.6667, "precision": 1.0, "f1": 0.8}
    assert told["classes"]["b"] == {"cases": 1, "recall": 1.0, "precision": 0.5, "f1": 0.6667}
    assert told["classes"]["c"]["recall"] is None
    assert told["confused"] == {"a": {"a": 2, "b": 1}, "b": {"b": 1}}
