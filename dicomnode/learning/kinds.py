"""Trains and measures classical pipelines, each as its `configs/train.json` says.

{"kind": "series_understanding", "phantoms": 78}: the node's own, from phantoms and the real series that may teach.
{"kind": "table", "cases": "cases.csv", "method": "svm", "layer": "…", "base": "../a_bundle"}: a model author's own. The table
has the columns `path` (a folder of one series, relative to the table), `patient`, and one for each of the pipeline's [[heads]];
an empty field is an answer that is not known. With `base` and `layer` the rows are what a trained network sees: transfer
learning. {"kind": "classifier", …}: a network of the author's own (`classifier`).
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.engines.digest import file_digest
from dicomnode.engines.series_features import series_features
from dicomnode.engines.sidecar import Sidecar, read_sidecar
from dicomnode.learning import classifier, distribution, understanding
from dicomnode.learning.classical import How, Method, figures, fit, save
from dicomnode.learning.reporting import Progress, silent
from dicomnode.learning.tables import ClassicalReport, load_image, note, read_plan, read_table
from dicomnode.learning.understanding import CLASSES, Example, cases_of

__all__ = ["ClassicalReport", "evaluate", "is_classical", "train"]

type_rows = Callable[[Volume | Image2D], NDArray[np.float32]]
FIRST_SEED = 700_000_000  # of training; phantoms of other trainings and figures are drawn elsewhere


def is_classical(folder: Path) -> bool:
    """Whether this module trains the pipeline in `folder`, or hands it to `classifier`. Raises PipelineError."""
    return read_sidecar(folder).postprocess == "classical" or classifier.is_classifier(folder)


def train(
    folder: Path, out: Path, *, seed: int = 0, real_data: Path | None = None, progress: Progress = silent
) -> ClassicalReport:
    """`out/bundle` is a copy of `folder` with new weights and figures. Raises PipelineError, UsageError."""
    if classifier.is_classifier(folder):
        return classifier.train(folder, out, seed=seed, progress=progress)
    began = time.monotonic()
    sidecar, plan = read_sidecar(folder), read_plan(folder)
    found = _examples(folder, plan, seed, real_data, progress)
    ways = _ways(sidecar, plan)
    progress("training", 0.0)
    heads = [
        fit(cases_of(found, head.name), head.classes, way, seed=seed) for head, way in zip(sidecar.heads, ways, strict=True)
    ]
    bundle = out / "bundle"
    shutil.copytree(folder, bundle, dirs_exist_ok=True)
    weights = bundle / sidecar.bundle.weights
    save(heads, weights)
    if sidecar.distribution is not None:
        distribution.save(distribution.fit(np.stack([one.row for one in found])), bundle / sidecar.distribution.weights)
    progress("measuring", 0.5)
    metrics = _figures(sidecar, plan, found, ways, seed)
    note(bundle, weights, metrics)
    patients = len({one.group for one in found})
    seconds = round(time.monotonic() - began, 1)
    return ClassicalReport(bundle, weights, file_digest(weights), len(found), patients, metrics, seconds)


def evaluate(folder: Path, *, seed: int = 0, real_data: Path | None = None, progress: Progress = silent) -> dict[str, Any]:
    """The figures alone: models are trained and thrown away, each judging the patients that it did not see.

    A network is not: its weights are measured on the patients that its training left out.
    """
    if classifier.is_classifier(folder):
        return classifier.evaluate(folder, seed=seed, progress=progress)
    sidecar, plan = read_sidecar(folder), read_plan(folder)
    return _figures(sidecar, plan, _examples(folder, plan, seed, real_data, progress), _ways(sidecar, plan), seed)


def _ways(sidecar: Sidecar, plan: Mapping[str, Any]) -> list[How]:
    if plan.get("kind") == "series_understanding":
        return [understanding.how(head.name) for head in sidecar.heads]
    method: Method = plan.get("method", "forest")
    return [How(method, temperature=float(plan.get("temperature", 1.0))) for _ in sidecar.heads]


def _figures(
    sidecar: Sidecar, plan: Mapping[str, Any], found: Sequence[Example], ways: Sequence[How], seed: int
) -> dict[str, Any]:
    if plan.get("kind") == "series_understanding":
        return understanding.measure(found, seed)
    return {
        head.name: {"left_out": figures(cases_of(found, head.name), head.classes, way, seed=seed)}
        for head, way in zip(sidecar.heads, ways, strict=True)
    }


def _examples(folder: Path, plan: Mapping[str, Any], seed: int, real_data: Path | None, progress: Progress) -> list[Example]:
    kind = plan.get("kind")
    if kind == "series_understanding":
        if tuple(CLASSES) != tuple(head.name for head in read_sidecar(folder).heads):
            raise PipelineError(f"{folder.name} has other [[heads]] than it is trained for", f"name {', '.join(CLASSES)}")
        return understanding.examples(int(plan.get("phantoms", 78)), FIRST_SEED + seed, real_data, progress)
    if kind == "table":
        return _of_table(folder, plan, progress)
    raise PipelineError(f"configs/train.json says kind {kind!r}", 'say "table" (docs/models.md), or "series_understanding"')


def _of_table(folder: Path, plan: Mapping[str, Any], progress: Progress) -> list[Example]:
    table, lines = read_table(folder, plan, "path, patient, and a column for each of [[heads]]")
    row_of = _row_maker(folder, plan)
    names = [head.name for head in read_sidecar(folder).heads]
    found = []
    for number, line in enumerate(lines):
        progress("features", number / len(lines))
        image = load_image(table.parent / line["path"])
        labels = {name: line[name] for name in names if line.get(name)}
        found.append(Example(row_of(image), labels, line["patient"]))
    return found


def _row_maker(folder: Path, plan: Mapping[str, Any]) -> type_rows:
    """Features of the pixels, or of a trained network that is named as the base."""
    if "base" not in plan:
        return series_features
    from dicomnode.engines.distribution import network_features
    from dicomnode.engines.pipeline import load_pipeline

    base = load_pipeline((folder / "configs" / str(plan["base"])).resolve(), device="cpu")
    return lambda image: network_features(image, base.sidecar, base.network_bundle, str(plan["layer"]))
