"""What a classifier's probabilities say, as statements on the whole image."""

import math
from typing import Any

import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Classification
from dicomnode.engines.rules import Platt
from dicomnode.engines.sidecar import ClassRule, Sidecar, StatementRules


def statements(prediction: Any, sidecar: Sidecar) -> tuple[Classification, ...]:
    """Probabilities (channel,) or (channel, 1, …) as statements. Raises PipelineError for anything else."""
    rules = sidecar.statement or StatementRules(name=sidecar.title[:64])
    probabilities = class_probabilities(prediction, sidecar)
    if rules.exclusive:
        return (_most_probable(probabilities, sidecar.classes, rules),)
    return tuple(_present_or_not(probabilities[one.channel], one, rules) for one in sidecar.classes)


def class_probabilities(prediction: Any, sidecar: Sidecar) -> list[float]:
    """By channel, calibrated, of probabilities (channel,) or (channel, 1, …). Raises PipelineError for anything else."""
    probabilities = _probabilities(prediction)
    if missing := [rule.channel for rule in sidecar.classes if rule.channel >= len(probabilities)]:
        raise PipelineError(
            f"the classifier has {len(probabilities)} classes, pipeline.toml wants {missing}", "correct the channel numbers"
        )
    exclusive = sidecar.statement is None or sidecar.statement.exclusive
    return _calibrated(probabilities, sidecar.classes, exclusive=exclusive)


def _probabilities(prediction: Any) -> list[float]:
    if not isinstance(prediction, torch.Tensor) or prediction.numel() != prediction.shape[0]:
        shape = tuple(prediction.shape) if isinstance(prediction, torch.Tensor) else type(prediction).__name__
        raise PipelineError(f"the network gives {shape}, one value per class expected", "correct the task in pipeline.toml")
    values = [float(value) for value in prediction.flatten()]
    if not all(-1e-4 <= value <= 1.0001 for value in values):
        raise PipelineError(
            f"the classifier gives values from {min(values):g} to {max(values):g}, probabilities expected",
            'add Activationsd to its postprocessing, or set bundle.activation to "softmax" or "sigmoid"',
        )
    return [min(max(value, 0.0), 1.0) for value in values]


def _calibrated(probabilities: list[float], classes: tuple[ClassRule, ...], *, exclusive: bool) -> list[float]:
    """Each class's own calibration; of exclusive classes the sum stays what it was."""
    found = list(probabilities)
    for one in classes:
        found[one.channel] = platt(probabilities[one.channel], one.calibration)
    before, after = sum(probabilities), sum(found)
    return [value * before / after for value in found] if exclusive and after > 0 else found


def platt(probability: float, calibration: Platt) -> float:
    """logit(p) = slope × logit(score) + intercept."""
    if calibration == Platt():
        return probability
    score = min(max(probability, 1e-6), 1 - 1e-6)
    logit = calibration.slope * math.log(score / (1 - score)) + calibration.intercept
    return 1.0 / (1.0 + math.exp(-logit))


def _most_probable(probabilities: list[float], classes: tuple[ClassRule, ...], rules: StatementRules) -> Classification:
    """The threshold is what the runner-up reaches: below it another class would have been named."""
    ranked = sorted(classes, key=lambda one: -probabilities[one.channel])
    runner_up = probabilities[ranked[1].channel] if len(ranked) > 1 else 0.0
    return Classification(
        name=rules.name,
        finding=rules.finding,
        value=ranked[0].label,
        value_code=ranked[0].code,
        probability=probabilities[ranked[0].channel],
        threshold=runner_up,
    )


def _present_or_not(probability: float, one: ClassRule, rules: StatementRules) -> Classification:
    present = probability >= one.threshold
    return Classification(
        name=one.label,
        finding=one.code,
        value="present" if present else "absent",
        value_code=rules.present if present else rules.absent,
        probability=probability,
        threshold=one.threshold,
    )
