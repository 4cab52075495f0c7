"""`postprocess = "classical"`: statements on a series by trees, forests, support vectors or linear models on its features."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Classification, Code
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.engines.arrays import Arrays, probabilities, read_arrays
from dicomnode.engines.catalogue import verified_weights
from dicomnode.engines.coding import concepts_of, private_code
from dicomnode.engines.distribution import Distribution
from dicomnode.engines.rules import HeadRules
from dicomnode.engines.series_features import NAMES, series_features
from dicomnode.engines.sidecar import Sidecar
from dicomnode.engines.values import Conclusion, Progress

UNCERTAIN = "uncertain"
_UNCERTAIN = Code("82334004", "SCT", "Indeterminate")


class ClassicalEngine:
    """One or several heads over one row of features. Loads no torch."""

    def __init__(self, folder: Path, sidecar: Sidecar) -> None:
        self.device = "cpu"
        self._sidecar = sidecar
        arrays = read_arrays(verified_weights(folder, sidecar)) if sidecar.heads else {}
        self._distribution = Distribution(folder, sidecar, None) if sidecar.distribution is not None else None
        self._heads = [(head, _of_head(arrays, number)) for number, head in enumerate(sidecar.heads)]

    def read(
        self, image: Volume | Image2D, others: Mapping[str, Volume], tell: Progress
    ) -> tuple[Conclusion, dict[str, float]] | Refusal:
        """One statement for each head. Raises PipelineError."""
        del others
        began = time.perf_counter()
        row = series_features(image)
        extracted = time.perf_counter()
        tell("forward", 0.8)
        said = tuple(
            _statement(head, probabilities(arrays, row))
            for head, arrays in self._heads
            if not (head.volumes_only and isinstance(image, Image2D))
        )
        verdict = self._distribution.judge(row) if self._distribution is not None else None
        if isinstance(verdict, Refusal):
            return verdict
        if verdict is not None:  # of what was never seen nothing is stated
            said = tuple(replace(one, value=UNCERTAIN, value_code=_UNCERTAIN) for one in said)
        if self._distribution is not None:
            said = (*said, self._distribution.statement(row))
        return Conclusion(classifications=said, warnings=(verdict,) if verdict else ()), {
            "preprocess": extracted - began,
            "forward": time.perf_counter() - extracted,
            "postprocess": 0.0,
        }


def _of_head(arrays: Arrays, number: int) -> dict[str, NDArray[Any]]:
    before = f"{number}."
    found = {name.removeprefix(before): value for name, value in arrays.items() if name.startswith(before)}
    if not found:
        raise PipelineError(f"the model holds no head number {number}", "train the pipeline again")
    made = int(found.get("features", np.array(len(found["center"]))).item())
    if made != len(NAMES):
        raise PipelineError(f"the model reads {made} features, this version makes {len(NAMES)}", "train the pipeline again")
    return found


def _statement(head: HeadRules, values: NDArray[np.float64]) -> Classification:
    if len(values) != len(head.classes):
        raise PipelineError(f"{head.name}: {len(values)} classes in the model, {len(head.classes)} named", "correct [[heads]]")
    best = int(np.argmax(values))
    runner_up = float(np.sort(values)[-2])
    certain = values[best] >= head.min_probability
    label = head.classes[best] if certain else UNCERTAIN
    return Classification(
        name=head.name,
        finding=head.finding,
        value=label,
        value_code=_code_of(label, head),
        probability=float(values[best]),
        threshold=max(runner_up, head.min_probability),
    )


def _code_of(label: str, head: HeadRules) -> Code:
    if label == UNCERTAIN:
        return _UNCERTAIN
    return head.codes.get(label) or concepts_of(label)[1] or private_code(label)
