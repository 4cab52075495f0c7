"""What imaging takes and gives: series references in; `Volume`, `Image2D` or `Refusal` out."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

type_pixels = NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """One stored instance: its UIDs and where its bytes are."""

    sop_instance_uid: str
    sop_class_uid: str
    path: Path
    number_of_frames: int = 1


@dataclass(frozen=True, slots=True)
class SeriesRef:
    """A series as the registry knows it; `instances` in no promised order (imaging orders by position)."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[InstanceRef, ...]


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Where a slice came from. `frame_number` is 1-based (PS3.3 10.3) and 1 for single-frame instances."""

    sop_instance_uid: str
    sop_class_uid: str
    frame_number: int = 1


@dataclass(frozen=True, slots=True)
class HeaderSummary:
    """What engines and results may ask of the headers. `None` or "" where the source is silent."""

    modality: str
    body_part_examined: str = ""
    series_description: str = ""
    convolution_kernel: str = ""
    slice_thickness_mm: float | None = None
    contrast_agent: str = ""
    patient_age: str = ""
    patient_sex: str = ""
    laterality: str = ""
    image_type: tuple[str, ...] = ()
    manufacturer: str = ""
    window_center: float | None = None
    window_width: float | None = None


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, no longer writable."""
    array.setflags(write=False)
    return array


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """(z, y, x) distance between voxel centres in mm of a 4×4 affine that maps (z, y, x, 1) to LPS mm."""
    z, y, x = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def voxel_ml_of(affine: NDArray[np.float64]) -> float:
    """Volume in ml of one voxel of that affine."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A geometrically right stack.

    pixels: (z, y, x) int16, uint16 or float32 with the modality LUT applied (PS3.3 C.11.1), in `unit`; read-only.
    affine: 4×4 float64; voxel index (z, y, x, 1) → LPS mm (x, y, z, 1) of the voxel's centre.
    frames: one per slice, in the order of the z axis.
    """

    pixels: type_pixels
    unit: str  # UCUM; "[hnsf'U]" for CT
    affine: NDArray[np.float64]
    frame_of_reference_uid: str
    frames: tuple[FrameRef, ...]
    headers: HeaderSummary
    study_instance_uid: str
    series_instance_uid: str
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) in voxels."""
        z, y, x = self.pixels.shape
        return z, y, x

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) distance between voxel centres in mm."""
        return spacing_of(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return voxel_ml_of(self.affine)


class SpacingOrigin(StrEnum):
    """What a pixel spacing was measured at (PS3.3 10.7)."""

    CALIBRATED = "calibrated"  # Pixel Spacing
    DETECTOR = "detector"  # Imager Pixel Spacing
    NONE = "none"


@dataclass(frozen=True, slots=True, eq=False)
class Image2D:
    """A projection image. pixels: (y, x) float32 or uint16 read-only, photometric meaning already applied (high = bright)."""

    pixels: type_pixels
    pixel_spacing_mm: tuple[float, float] | None  # (y, x)
    spacing_origin: SpacingOrigin
    frame: FrameRef
    headers: HeaderSummary
    study_instance_uid: str
    series_instance_uid: str
    warnings: tuple[str, ...] = ()


class RefusalCode(StrEnum):
    """Why no volume or no result was made. Values are part of the outside contract."""

    NO_PIXELS = "no_pixels"
    UNSUPPORTED_CLASS = "unsupported_class"
    MIXED_GEOMETRY = "mixed_geometry"
    GAP = "gap"
    DUPLICATE_POSITION = "duplicate_position"
    TILT = "tilt"
    TEMPORAL = "temporal"
    LOCALIZER = "localizer"
    TOO_FEW = "too_few"
    TOO_MANY = "too_many"
    CORRUPT = "corrupt"
    NOT_THIS_REGION = "not_this_region"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    NO_ELIGIBLE_SERIES = "no_eligible_series"
    WRONG_MODALITY = "wrong_modality"
    PROCESSING_FAILED = "processing_failed"  # nothing wrong with the input: the node's last attempt failed


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ordinary value: this input gives no result, for this reason. `instances` are SOP Instance UIDs."""

    code: RefusalCode
    message: str
    remedy: str
    instances: tuple[str, ...] = field(default=())
