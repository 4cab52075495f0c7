"""The second stage: what of a candidate's score, size, shape, density and the scan's slice spacing makes a lesion of it.

A vessel that runs across one slice of 5 mm scores like a nodule of that size. A logistic regression over all candidates of
phantoms that neither training nor the figures draw learns to ask more of small ones there; its weights stand in
`pipeline.toml` under `[lesions.calibration]`, where people can read them.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dicomnode.domain.findings import Findings, Lesion
from dicomnode.engines import load_pipeline
from dicomnode.engines.chest.lesions import DENSEST_HU
from dicomnode.engines.sidecar import Calibration, DiffuseRule, read_sidecar
from dicomnode.learning.evaluation import copied_with, evaluation_spec, volume_of
from dicomnode.learning.metrics import Target, match
from dicomnode.learning.reporting import Progress, silent
from dicomnode.phantom import thorax

FIRST_JUDGING_SEED = 810_000_000  # training draws below it, the figures above
_FEATURES = ("slope", "log_long_axis", "roundness", "mean", "slice_spacing")
_TABLE = re.compile(r"^\[lesions\.calibration\]\n(?:(?!\[).*\n)*", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Candidates and the truth. features: (n, 5) in the order of `Calibration`'s fields without intercept; real: (n,)."""

    features: NDArray[np.float64]
    real: NDArray[np.bool_]

    @property
    def has_both_kinds(self) -> bool:
        """Whether there are lesions and false ones to tell apart."""
        return bool(self.real.any() and not self.real.all())


def gather(
    bundle_dir: Path, phantoms: int, seed: int = FIRST_JUDGING_SEED, weights: Path | None = None, progress: Progress = silent
) -> Judged:
    """Every candidate of `phantoms` scans, however improbable, through the shipped path."""
    features: list[list[float]] = []
    real: list[bool] = []
    rules = read_sidecar(bundle_dir).lesions
    diffuse = rules.diffuse if rules else None
    with tempfile.TemporaryDirectory() as folder:
        opened = copied_with(bundle_dir, weights, Path(folder))
        sidecar = opened / "pipeline.toml"
        sidecar.write_text(_without_judgement(sidecar.read_text()))
        pipeline = load_pipeline(opened, device="cpu")
        for number in range(phantoms):
            progress("judging", number / phantoms)
            phantom = thorax(evaluation_spec(seed + number))
            found = pipeline.run(volume_of(phantom))
            if not isinstance(found, Findings):
                continue
            targets = [Target(nodule.center_mm, nodule.diameter_mm) for nodule in phantom.nodules]
            for lesion in _that_stand_for_themselves(found.lesions, diffuse):
                features.append(_features(lesion, phantom.spec.slice_spacing_mm))
                real.append(any(match(targets, [lesion.center_mm]).found))
    return Judged(np.array(features, dtype=np.float64).reshape(-1, len(_FEATURES)), np.array(real, dtype=bool))


def fit_calibration(judged: Judged) -> Calibration:
    """Logistic regression over the candidates. Raises ValueError where all of them are real or none is."""
    if not judged.has_both_kinds:
        raise ValueError("candidates of both kinds are needed, lesions and false ones: judge more phantoms")
    model = LogisticRegression(C=1.0, max_iter=5000).fit(judged.features, judged.real)
    weights = {name: round(float(value), 4) for name, value in zip(_FEATURES, model.coef_[0], strict=True)}
    return Calibration(intercept=round(float(model.intercept_[0]), 4), **weights)


def write_calibration(bundle_dir: Path, calibration: Calibration) -> None:
    """Put `calibration` into the bundle's pipeline.toml, whose other text stays. Raises ValueError without such a table."""
    path = bundle_dir / "pipeline.toml"
    table = "[lesions.calibration]\n" + "".join(f"{name} = {value}\n" for name, value in calibration.model_dump().items())
    text, count = _TABLE.subn(table + "\n", path.read_text())
    if count != 1:
        raise ValueError(f"{path}: one table [lesions.calibration] is needed, there are {count}")
    path.write_text(text)


def _without_judgement(sidecar: str) -> str:
    """The sidecar with every candidate reported, its probability being the network's bare score."""
    text, count = _TABLE.subn("", sidecar)
    if count != 1:
        raise ValueError("pipeline.toml needs one table [lesions.calibration]")
    for name, value in (("min_probability", 0.0), ("max_count", 250)):
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    return re.sub(r"^\[lesions\.diffuse\]\n(?:(?!\[).*\n)*", "", text, flags=re.MULTILINE)


def _that_stand_for_themselves(lesions: tuple[Lesion, ...], rule: DiffuseRule | None) -> list[Lesion]:
    """Without the pale ones of a diffuse disease, which the engine sets apart (`engines.chest.lesions.without_diffuse`)."""
    if rule is None or sum(lesion.mean < rule.below for lesion in lesions) <= rule.more_than:
        return list(lesions)
    return [lesion for lesion in lesions if lesion.mean >= rule.below]


def _features(lesion: Lesion, slice_spacing_mm: float) -> list[Any]:
    score = min(max(lesion.probability or 0.0, 1e-6), 1 - 1e-6)
    roundness = lesion.short_axis_mm / max(lesion.long_axis_mm, 1e-3)
    return [
        np.log(score / (1 - score)),
        np.log(max(lesion.long_axis_mm, 1.0)),
        roundness,
        min(lesion.mean, DENSEST_HU) / 100,
        slice_spacing_mm,
    ]
