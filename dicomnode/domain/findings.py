"""What an engine found in an image, in the image's own grid."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8): value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a label map. `number` is its voxel value there, 1-based."""

    number: int
    label: str
    category: Code
    type: Code
    color_rgb: tuple[int, int, int]  # recommended display colour, 0-255
    volume_ml: float
    voxels: int
    anatomy: Code | None = None
    tracking_id: str | None = None
    tracking_uid: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """A label map on the source grid: (z, y, x) uint8 or uint16, read-only, 0 = background. Within one map nothing overlaps."""

    name: str
    labels: NDArray[np.uint8] | NDArray[np.uint16]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion. Points are LPS (x, y, z) mm, axes in mm, intensities in the volume's unit.

    `segment` names (label map, segment number) where the lesion has a segment of its own.
    The long axis is the largest in-plane diameter over all slices, the short axis the largest
    perpendicular to it in that slice.
    """

    label: str
    tracking_id: str
    tracking_uid: str
    center_mm: tuple[float, float, float]
    long_axis_mm: float
    short_axis_mm: float
    volume_ml: float
    mean: float
    std: float
    minimum: float
    maximum: float
    probability: float
    laterality: Literal["left", "right", ""]
    segment: tuple[str, int] | None = None
    key_slice_index: int = 0  # 0-based z of the slice with the largest area


@dataclass(frozen=True, slots=True)
class Classification:
    """One statement about the whole image, e.g. finding "suspicious nodule", value "present", probability 0-1."""

    name: str
    finding: Code
    value: str
    value_code: Code
    probability: float
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """(z, y, x) uint8 on the source grid; value = minimum + scale × voxel."""

    name: str
    values: NDArray[np.uint8]
    minimum: float
    scale: float


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in voxel indices, 0-based, half-open: start ≤ index < stop, (z, y, x)."""

    label: str
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    probability: float


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model spoke. `digest` is the SHA-256 (hex) of the bundle folder's relevant files."""

    name: str
    version: str
    digest: str
    manufacturer: str
    intended_use: str
    demonstration: bool
    card: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """All that an engine says about one volume or image."""

    model: ModelIdentity
    label_maps: tuple[LabelMap, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    classifications: tuple[Classification, ...] = ()
    heatmaps: tuple[HeatMap, ...] = ()
    boxes: tuple[Box, ...] = ()
    warnings: tuple[str, ...] = ()
    timings_s: dict[str, float] = field(default_factory=dict)
    # How it was computed: "speed", "precision", "way"; "fell back" where memory ran out, "self-test" where fast was proved or
    # refused. Says nothing about the image, like the timings.
    run: dict[str, str] = field(default_factory=dict)
    lesions_sought: bool = True  # False: the model looks for none, so that it names none says nothing
