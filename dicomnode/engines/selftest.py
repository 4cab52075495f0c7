"""Whether a model's fast way may stand for its exact one: both on the same image, and how far their findings agree.

Networks with InstanceNorm change with window and crop, and lower precision moves what lies at a threshold: neither shows in the
bundle's files. So the first image for which "fast" is asked is computed both ways before any fast result leaves.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dicomnode.domain.findings import Findings, LabelMap

LEAST_DICE = 0.99
_MOST_PROBABILITY_APART = 0.1
_LARGE_ML = 1.0  # below it, one voxel more at the rim decides


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict. `words` say on what it rests."""

    passed: bool
    words: str


def compared(exact: Findings, fast: Findings) -> Proof:
    """Passed: Dice of all labelled voxels at least 0.99, the same large lesions, the same statements, the same boxes."""
    dice = pooled_dice(exact, fast)
    if dice < LEAST_DICE:
        return Proof(False, f"Dice {dice:.3f} to exact, at least {LEAST_DICE} wanted")
    if why := next(_other_statements(exact, fast), None):
        return Proof(False, why)
    return Proof(True, f"Dice {dice:.4f} to exact")


def pooled_dice(one: Findings, other: Findings) -> float:
    """2 × voxels that both call the same / voxels that each calls anything, over all label maps. 1 where neither has any."""
    maps, others = _by_name(one), _by_name(other)
    same = labelled = 0
    for name in maps.keys() | others.keys():
        first, second = (held[name].labels if name in held else None for held in (maps, others))
        for labels in (first, second):
            labelled += 0 if labels is None else int(np.count_nonzero(labels))
        if first is not None and second is not None:
            # Lesions are numbered by probability: another order is no other finding.
            by_number = name != "lesions"
            both = (first == second) & (first > 0) if by_number else (first > 0) & (second > 0)
            same += int(np.count_nonzero(both))
    return 2 * same / labelled if labelled else 1.0


def _by_name(findings: Findings) -> dict[str, LabelMap]:
    return {one.name: one for one in findings.label_maps}


def _other_statements(exact: Findings, fast: Findings) -> Iterator[str]:
    large = [sum(lesion.volume_ml >= _LARGE_ML for lesion in findings.lesions) for findings in (exact, fast)]
    if large[0] != large[1]:
        yield f"{large[1]} lesions of a millilitre or more, exact finds {large[0]}"
    if len(exact.boxes) != len(fast.boxes):
        yield f"{len(fast.boxes)} boxes, exact finds {len(exact.boxes)}"
    if len(exact.classifications) != len(fast.classifications):
        yield "other statements than exact"
    for one, other in zip(exact.classifications, fast.classifications, strict=False):
        if one.value != other.value or abs(one.probability - other.probability) > _MOST_PROBABILITY_APART:
            yield f"{one.name}: {other.value} ({other.probability:.2f}), exact says {one.value} ({one.probability:.2f})"


class Proofs:
    """Verdicts kept in a folder, one for each model and machine; None: kept by nobody."""

    def __init__(self, folder: Path | None, model_digest: str, machine: str) -> None:
        key = hashlib.sha256(f"{model_digest} {machine}".encode()).hexdigest()[:32]
        self._path = None if folder is None else folder / f"fast-{key}.json"

    def read(self) -> Proof | None:
        """What was found before, or None."""
        if self._path is None:
            return None
        try:
            return Proof(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):  # not there, or not ours any more: the test is made again
            return None

    def write(self, proof: Proof) -> None:
        """Keeps it, where there is a folder to write to."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(asdict(proof)))
        except OSError:  # the next process makes the test again
            return
