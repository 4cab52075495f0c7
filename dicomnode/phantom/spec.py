"""What can be asked of the generator, and what it gives back."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Region = Literal["chest", "abdomen", "head"]
NoduleKind = Literal["solid", "part_solid", "ground_glass", "spiculated"]
Disease = Literal["none", "emphysema", "effusion", "fibrosis", "consolidation", "ground_glass"]
Kernel = Literal["soft", "sharp"]

LABEL_BACKGROUND = 0
LABEL_LEFT_LUNG = 1
LABEL_RIGHT_LUNG = 2
LABEL_FIRST_NODULE = 3


@dataclass(frozen=True, slots=True)
class NoduleSpec:
    """A nodule to plant: centre in LPS mm, diameter in mm, HU of its solid part, kind."""

    center_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float = 40.0
    kind: NoduleKind = "solid"


@dataclass(frozen=True, slots=True)
class ThoraxSpec:
    """A synthetic CT series. The same spec gives the same voxels; `None` means "drawn from the seed".

    The slab of `slices` × `slice_spacing_mm` is centred on the region; +x is the patient's left, +y posterior, +z cranial.
    `anatomy_seed` lets two series (kernels, time points) share one patient; noise and nodules still follow `seed`.
    """

    seed: int = 0
    slices: int = 100
    size: int = 512
    slice_spacing_mm: float = 2.5
    pixel_spacing_mm: float = 0.75
    nodules: tuple[NoduleSpec, ...] | None = None
    nodule_count: int | None = None  # how many to draw where `nodules` is None; None = 0-5, none in a third of the patients
    region: Region = "chest"
    noise_hu: float = 20.0
    kernel: Kernel = "soft"
    contrast_hu: float | None = None  # HU of blood; native blood is about 40
    disease: Disease = "none"
    arms_down: bool | None = None
    table: bool | None = None
    center_offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)  # slab and field of view, relative to the region's centre
    outside_circle_hu: int | None = None  # padding outside the scan circle, e.g. -3024; None = plain air
    anatomy_seed: int | None = None


@dataclass(frozen=True, slots=True)
class PlantedNodule:
    """The truth about one nodule. `diameter_mm` is that of a sphere of `volume_ml`; `label` its value in `Phantom.labels`."""

    center_mm: tuple[float, float, float]
    diameter_mm: float
    volume_ml: float
    label: int
    kind: NoduleKind = "solid"


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A synthetic study's voxels with their truth.

    hu: int16 (z, y, x), z from caudal to cranial. affine: 4×4, voxel index (z, y, x, 1) → LPS mm (x, y, z, 1).
    labels: uint8 (z, y, x): 0 background, 1 left lung, 2 right lung, 3 … one value per nodule.
    """

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    labels: NDArray[np.uint8]
    nodules: tuple[PlantedNodule, ...]
    spec: ThoraxSpec

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) distance between voxel centres in mm."""
        return self.spec.slice_spacing_mm, self.spec.pixel_spacing_mm, self.spec.pixel_spacing_mm


@dataclass(frozen=True, slots=True)
class PatientText:
    """What the headers of a written study say about patient and study; plainly synthetic unless a test wants otherwise."""

    patient_name: str = "PHANTOM^THORAX"
    patient_id: str = ""  # empty: "PHANTOM-<seed>"
    birth_date: str = "19600101"
    sex: str = "O"
    accession_number: str = ""
    study_date: str = "20260102"
    study_time: str = "101500"
    study_description: str = "SYNTHETIC CHEST CT"
    study_id: str = "1"
    referring_physician: str = ""
    character_set: str = "ISO_IR 192"
    extra: dict[str, str] = field(default_factory=dict)  # further attributes by keyword, written into every instance
