"""What was planted beside what was found, read from the objects that arrived in the PACS."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset

NEAR_MM = 12.0  # a found lesion this close to a planted nodule's centre is that nodule
MOST_FALSE = 2


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth about one nodule; LPS mm."""

    center_mm: tuple[float, float, float]
    diameter_mm: float
    volume_ml: float


@dataclass(frozen=True, slots=True)
class Found:
    """One lesion segment of a SEG; the diameter is that of a sphere of its volume."""

    label: str
    center_mm: tuple[float, float, float]
    diameter_mm: float
    volume_ml: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A planted nodule and the lesion found for it, one of them None where the other stands alone."""

    planted: Planted | None
    found: Found | None
    distance_mm: float | None

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        planted, found = (asdict(one) if one else None for one in (self.planted, self.found))
        return {"planted": planted, "found": found, "distance_mm": self.distance_mm}


def found_in(seg: Dataset, probabilities: dict[str, float]) -> list[Found]:
    """The nodules of a Segmentation (PS3.3 A.51), measured in its frames' own geometry."""
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    labels = {int(one.SegmentNumber): str(one.SegmentLabel) for one in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    spacing = [float(one) for one in shared.PixelMeasuresSequence[0].PixelSpacing]
    between = float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices)
    across, down = np.reshape([float(one) for one in shared.PlaneOrientationSequence[0].ImageOrientationPatient], (2, 3))
    sums: dict[int, tuple[np.ndarray, int]] = {}
    for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if not labels[number].startswith("Nodule"):
            continue
        corner = np.array([float(one) for one in groups.PlanePositionSequence[0].ImagePositionPatient])
        rows, columns = np.nonzero(frame)
        # PS3.3 C.7.6.2.1.1: the column index runs along the first direction, the row index along the second.
        points = corner + np.outer(columns * spacing[1], across) + np.outer(rows * spacing[0], down)
        total, count = sums.get(number, (np.zeros(3), 0))
        sums[number] = (total + points.sum(axis=0), count + len(points))
    voxel_ml = spacing[0] * spacing[1] * between / 1000
    return [
        _measured(labels[number], total / count, count * voxel_ml, probabilities)
        for number, (total, count) in sums.items()
        if count
    ]


def _measured(label: str, center: np.ndarray, volume_ml: float, probabilities: dict[str, float]) -> Found:
    diameter = (6000 * volume_ml / math.pi) ** (1 / 3)
    x, y, z = (round(float(one), 1) for one in center)
    return Found(label, (x, y, z), round(diameter, 1), round(volume_ml, 3), probabilities.get(label))


def pair_up(planted: Sequence[Planted], found: Sequence[Found]) -> list[Pair]:
    """Each planted nodule with its nearest lesion, nearest pairs first; then what is left on either side."""
    distances = sorted(
        (math.dist(truth.center_mm, lesion.center_mm), i, j)
        for i, truth in enumerate(planted)
        for j, lesion in enumerate(found)
    )
    pairs, used_planted, used_found = {}, set(), set()
    for distance, i, j in distances:
        if distance <= NEAR_MM and i not in used_planted and j not in used_found:
            pairs[i] = Pair(planted[i], found[j], round(distance, 1))
            used_planted.add(i)
            used_found.add(j)
    missed = [pairs.get(i, Pair(truth, None, None)) for i, truth in enumerate(planted)]
    return missed + [Pair(None, lesion, None) for j, lesion in enumerate(found) if j not in used_found]


def sensible(pairs: Sequence[Pair]) -> bool:
    """Every planted nodule has its lesion, and few lesions have no nodule."""
    false = [pair for pair in pairs if pair.planted is None]
    return all(pair.found for pair in pairs if pair.planted) and len(false) <= MOST_FALSE


def save_frames(secondary_capture: Path, folder: Path) -> list[Path]:
    """The frames of a Secondary Capture as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(secondary_capture)
    frames = dataset.pixel_array
    if frames.ndim == 3:  # one RGB frame: (rows, columns, 3)
        frames = frames[np.newaxis]
    paths = []
    for number, frame in enumerate(frames, start=1):
        name = f"overlay-{int(dataset.InstanceNumber or 1):02d}"
        paths.append(folder / (f"{name}.png" if len(frames) == 1 else f"{name}-{number:03d}.png"))
        Image.fromarray(frame).save(paths[-1])
    return paths
