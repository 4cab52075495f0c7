"""Trees, forests, support vectors and linear models on rows of features: trained by scikit-learn, stored as plain arrays.

Also transfer learning: the rows may be the pooled features of a trained network (`engines.distribution.network_features`) in
place of `series_features`. Figures are measured on cases that the model did not see: left out by patient, so that images of one
never stand on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dicomnode.engines.arrays import METHODS, probabilities
from dicomnode.learning.class_figures import multiclass_figures

Method = Literal["forest", "tree", "svm", "linear"]
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """rows: (cases, features). labels: the class of each. groups: which cases belong to one patient."""

    rows: Rows
    labels: tuple[str, ...]
    groups: tuple[str, ...]

    def without(self, group: str) -> "Cases":
        """The cases of all other patients."""
        return self._where([one != group for one in self.groups])

    def only(self, group: str) -> "Cases":
        """The cases of one patient."""
        return self._where([one == group for one in self.groups])

    def _where(self, kept: Sequence[bool]) -> "Cases":
        numbers = [number for number, keep in enumerate(kept) if keep]
        return Cases(self.rows[numbers], tuple(self.labels[one] for one in numbers), tuple(self.groups[one] for one in numbers))


@dataclass(frozen=True, slots=True)
class How:
    """What is trained: the method, which columns of the rows it reads (None: all), how much its probabilities are flattened."""

    method: Method = "forest"
    columns: tuple[int, ...] | None = None
    temperature: float = 1.0


def fit(cases: Cases, classes: Sequence[str], how: How, *, seed: int = 0) -> dict[str, Any]:
    """A model's arrays, as `dicomnode.engines.arrays` computes them. The same cases and seed give the same arrays."""
    numbers = np.array([list(classes).index(label) for label in cases.labels])
    columns = np.array(how.columns if how.columns is not None else range(cases.rows.shape[1]), dtype=np.int64)
    rows = cases.rows[:, columns].astype(np.float64)
    center, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    scaled = (rows - center) / scale
    fitted = {"forest": _forest, "tree": _tree, "svm": _svm, "linear": _linear}[how.method](scaled, numbers, len(classes), seed)
    common = {"method": np.array(METHODS.index(how.method)), "temperature": np.array(how.temperature, dtype=np.float64)}
    read = {"columns": columns, "features": np.array(cases.rows.shape[1]), "center": center, "scale": scale}
    return {**common, **read, **fitted}


def figures(cases: Cases, classes: Sequence[str], how: How, *, seed: int = 0, folds: int = 0) -> dict[str, Any]:
    """Accuracy, recall, precision and F1 of models that did not see what they judge; each patient left out once.

    folds: patients are left out in that many lots instead of one by one.
    """
    groups = sorted(set(cases.groups))
    lots = [groups[number::folds] for number in range(folds)] if folds else [[one] for one in groups]
    said: list[str] = []
    truth: list[str] = []
    for lot in lots:
        kept, left_out = cases, []
        for group in lot:
            kept = kept.without(group)
            left_out.append(cases.only(group))
        arrays = fit(kept, classes, how, seed=seed)
        for case in left_out:
            said += [classes[int(np.argmax(probabilities(arrays, row)))] for row in case.rows]
            truth += case.labels
    return multiclass_figures(truth, said, classes)


def save(heads: Sequence[dict[str, Any]], path: Path) -> None:
    """The arrays of all heads of a pipeline in one safetensors file."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{number}.{name}": np.array(value, order="C") for number, head in enumerate(heads) for name, value in head.items()
    }
    save_file(arrays, path)


def _forest(rows: NDArray[np.float64], numbers: NDArray[Any], classes: int, seed: int) -> dict[str, Any]:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(60, min_samples_leaf=2, class_weight="balanced", random_state=seed, n_jobs=1)
    model.fit(rows, numbers)
    return _tree_arrays([one.tree_ for one in model.estimators_], model.classes_, classes)


def _tree(rows: NDArray[np.float64], numbers: NDArray[Any], classes: int, seed: int) -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(min_samples_leaf=3, class_weight="balanced", random_state=seed).fit(rows, numbers)
    return _tree_arrays([model.tree_], model.classes_, classes)


def _tree_arrays(trees: Sequence[Any], known: NDArray[Any], classes: int) -> dict[str, Any]:
    """All trees in one run of nodes; a leaf has children -1."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
    roots, start = [], 0
    for tree in trees:
        shift = np.where(tree.children_left >= 0, start, 0)
        parts["feature"].append(np.maximum(tree.feature, 0).astype(np.int32))
        parts["threshold"].append(tree.threshold.astype(np.float64))
        parts["left"].append((tree.children_left + shift).astype(np.int32))
        parts["right"].append((tree.children_right + shift).astype(np.int32))
        shares = np.zeros((tree.node_count, classes), dtype=np.float32)
        shares[:, known] = tree.value[:, 0] / np.maximum(tree.value[:, 0].sum(axis=1, keepdims=True), 1e-12)
        parts["value"].append(shares)
        roots.append(start)
        start += tree.node_count
    return {"roots": np.array(roots, dtype=np.int32), **{name: np.concatenate(one) for name, one in parts.items()}}


def _svm(rows: NDArray[np.float64], numbers: NDArray[Any], classes: int, seed: int) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.svm import SVC

    gamma = 1.0 / rows.shape[1]
    support, weights, offsets, slopes, platt = [], [], [], [], []
    for number in range(classes):
        mine = numbers == number
        model = SVC(C=10.0, gamma=gamma, class_weight="balanced", random_state=seed).fit(rows, mine)
        parts = StratifiedKFold(3, shuffle=True, random_state=seed)
        unseen = cross_val_predict(model, rows, mine, cv=parts, method="decision_function")
        sigmoid = LogisticRegression().fit(unseen[:, None], mine)
        support.append(model.support_vectors_)
        weights.append(model.dual_coef_[0])
        offsets.append(float(model.intercept_[0]))
        slopes.append(float(sigmoid.coef_[0, 0]))
        platt.append(float(sigmoid.intercept_[0]))
    ends = np.cumsum([0, *(len(one) for one in support)])
    combined = np.zeros((classes, ends[-1]))
    for number, one in enumerate(weights):
        combined[number, ends[number] : ends[number + 1]] = one
    return {
        "support": np.concatenate(support),
        "weights": combined,
        "offset": np.array(offsets),
        "gamma": np.array(gamma),
        "platt_slope": np.array(slopes),
        "platt_offset": np.array(platt),
    }


def _linear(rows: NDArray[np.float64], numbers: NDArray[Any], classes: int, seed: int) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000, random_state=seed).fit(rows, numbers)
    weights, offset = np.zeros((classes, rows.shape[1])), np.full(classes, -50.0)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        low, high = model.classes_
        weights[high], offset[high], offset[low] = model.coef_[0], model.intercept_[0], 0.0
    else:
        weights[model.classes_], offset[model.classes_] = model.coef_, model.intercept_
    return {"weights": weights, "offset": offset}
