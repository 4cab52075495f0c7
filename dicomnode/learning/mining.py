"""Hard cases: what a half-trained network takes for lesions, and lesions that it misses; training goes there more often."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from dicomnode.learning.cache import list_cases, load_case, note_errors
from dicomnode.learning.cases import AIR_HU, TRUTH_IGNORE, TRUTH_LESION, TRUTH_OUTSIDE, Case
from dicomnode.learning.patches import HIGH_HU, LOW_HU
from dicomnode.learning.precision import bfloat16_is_quicker

_LESION_CHANNEL = 2
_SMALLEST_VOXELS = 8
_DIVISOR = 16  # of every side of what the network is given


def mine(network: nn.Module, folder: Path, names: Iterable[str]) -> int:
    """Run `network` over the named cases of `folder` and note in each the false lesions' centres and the missed lesions.

    All cases of one scan (names up to the last dash) show the same patient: a trap in one is noted in all. Gives the count of
    false and missed ones.
    """
    count = 0
    everything = list_cases(folder)
    for name in names:
        case = load_case(folder, name)
        probability = lesion_probability(network, case)
        traps, missed = false_lesions(case, probability), unseen_lesions(case, probability)
        count += len(traps) + len(missed)
        family = name.rpartition("-")[0] + "-"
        same_patient = [name] if name.startswith("phantom-") else [other for other in everything if other.startswith(family)]
        for other in same_patient:
            note_errors(folder, other, traps, missed if other == name else None)
    return count


def lesion_probability(network: nn.Module, case: Case) -> NDArray[np.float32]:
    """The lesion channel (x, y, z) over the whole case, body masked as in the engine."""
    image = np.where(case.truth == TRUTH_OUTSIDE, AIR_HU, case.image).astype(np.float32)
    scaled = np.clip((image - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
    padded = np.pad(scaled, [(0, -size % _DIVISOR) for size in scaled.shape])
    device = next(network.parameters()).device
    tensor = torch.from_numpy(padded)[None, None].to(device).contiguous(memory_format=torch.channels_last_3d)
    was_training = network.training
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_is_quicker(device)):
        logits = network(tensor)
    network.train(was_training)
    lesion = torch.softmax(logits.float(), dim=1)[0, _LESION_CHANNEL].cpu().numpy()
    x, y, z = scaled.shape
    return np.asarray(lesion[:x, :y, :z], dtype=np.float32)


def false_lesions(case: Case, probability: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.float32]:
    """Centres (n, 3) in voxels of what is called a lesion and touches none."""
    labels, count = ndimage.label(probability >= threshold)
    if count == 0:
        return np.zeros((0, 3), np.float32)
    real = np.isin(case.truth, (TRUTH_LESION, TRUTH_IGNORE))
    touched = np.unique(labels[real])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    wrong = [n for n in range(1, count + 1) if n not in touched and sizes[n] >= _SMALLEST_VOXELS]
    return np.array(ndimage.center_of_mass(labels > 0, labels, wrong), np.float32).reshape(-1, 3)


def unseen_lesions(case: Case, probability: NDArray[np.float32], threshold: float = 0.5) -> NDArray[np.float32]:
    """Centres (n, 3) in voxels of the lesions in which the network's score stays below `threshold` everywhere."""
    labels, count = ndimage.label(case.truth == TRUTH_LESION)
    if count == 0:
        return np.zeros((0, 3), np.float32)
    numbers = np.arange(1, count + 1)
    best = ndimage.maximum(probability, labels, numbers)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    unseen = numbers[(np.asarray(best) < threshold) & (sizes >= _SMALLEST_VOXELS)]
    return np.array(ndimage.center_of_mass(labels > 0, labels, unseen), np.float32).reshape(-1, 3)
