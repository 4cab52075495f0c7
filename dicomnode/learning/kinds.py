"""Trains and measures classical pipelines, each as its `configs/train.json` says.

{"kind": "series_understanding", "phantoms": 78}: the node's own, from phantoms and the real series that may teach.
{"kind": "table", "cases": "cases.csv", "method": "svm", "layer": "…", "base": "../a_bundle"}: a model author's own. The table
has the columns `path` (a folder of one series, relative to the table), `patient`, and one for each of the pipeline's [[heads]];
an empty field is an answer that is not known. With `base` and `layer` the rows are what a trained network sees: transfer
learning.
"""

import csv
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError, UsageError
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.engines.digest import file_digest
from dicomnode.engines.safety import read_config
from dicomnode.engines.series_features import series_features
from dicomnode.engines.sidecar import Sidecar, read_sidecar
from dicomnode.learning import distribution, understanding
from dicomnode.learning.classical import How, Method, figures, fit, save
from dicomnode.learning.reporting import Progress, silent
from dicomnode.learning.understanding import CLASSES, Example, cases_of

type_rows = Callable[[Volume | Image2D], NDArray[np.float32]]
FIRST_SEED = 700_000_000  # of training; phantoms of other trainings and figures are drawn elsewhere


@dataclass(frozen=True, slots=True)
class ClassicalReport:
    """What came of a training: the new bundle, its weights, and the figures on what each model did not see."""

    bundle: Path
    weights: Path
    weights_sha256: str
    examples: int
    patients: int
    metrics: dict[str, Any]
    seconds: float


def is_classical(folder: Path) -> bool:
    """Whether this module trains the pipeline in `folder`. Raises PipelineError."""
    return read_sidecar(folder).postprocess == "classical"


def train(
    folder: Path, out: Path, *, seed: int = 0, real_data: Path | None = None, progress: Progress = silent
) -> ClassicalReport:
    """`out/bundle` is a copy of `folder` with new weights and figures. Raises PipelineError, UsageError."""
    began = time.monotonic()
    sidecar, plan = read_sidecar(folder), _plan(folder)
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
    _note(bundle, weights, metrics)
    patients = len({one.group for one in found})
    seconds = round(time.monotonic() - began, 1)
    return ClassicalReport(bundle, weights, file_digest(weights), len(found), patients, metrics, seconds)


def evaluate(folder: Path, *, seed: int = 0, real_data: Path | None = None, progress: Progress = silent) -> dict[str, Any]:
    """The figures alone: models are trained and thrown away, each judging the patients that it did not see."""
    sidecar, plan = read_sidecar(folder), _plan(folder)
    return _figures(sidecar, plan, _examples(folder, plan, seed, real_data, progress), _ways(sidecar, plan), seed)


def _plan(folder: Path) -> dict[str, Any]:
    path = folder / "configs" / "train.json"
    if not path.is_file():
        raise PipelineError(f"{folder} has no configs/train.json", "docs/models.md says what it holds")
    return read_config(path)


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
    table = (folder / "configs" / str(plan.get("cases", "cases.csv"))).resolve()
    if not table.is_file():
        raise UsageError(f"the table {table} does not exist", "write it: path, patient, and a column for each of [[heads]]")
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    row_of = _row_maker(folder, plan)
    names = [head.name for head in read_sidecar(folder).heads]
    found = []
    for number, line in enumerate(lines):
        progress("features", number / len(lines))
        image = _image(table.parent / line["path"])
        labels = {name: line[name] for name in names if line.get(name)}
        found.append(Example(row_of(image), labels, line.get("patient") or line["path"]))
    return found


def _row_maker(folder: Path, plan: Mapping[str, Any]) -> type_rows:
    """Features of the pixels, or of a trained network that is named as the base."""
    if "base" not in plan:
        return series_features
    from dicomnode.engines.distribution import network_features
    from dicomnode.engines.pipeline import load_pipeline

    base = load_pipeline((folder / "configs" / str(plan["base"])).resolve(), device="cpu")
    return lambda image: network_features(image, base.sidecar, base.network_bundle, str(plan["layer"]))


def _image(path: Path) -> Volume | Image2D:
    from dicomnode import imaging

    series = imaging.scan([path]).series
    if len(series) != 1:
        raise UsageError(f"{path} holds {len(series)} series", "name a folder of one series in each line of the table")
    loaded = imaging.load(series[0])
    if isinstance(loaded, Refusal):
        raise UsageError(f"{path}: {loaded.message}", loaded.remedy)
    return loaded


def _note(bundle: Path, weights: Path, metrics: Mapping[str, Any]) -> None:
    """The figures and the weights' SHA-256 into metadata.json."""
    path = bundle / "configs" / "metadata.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    facts |= {"eval_metrics": metrics, "weights_sha256": file_digest(weights)}
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
