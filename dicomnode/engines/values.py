"""What passes between a pipeline, its kind of reading and the network: plain arrays on grids."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Box as FoundBox
from dicomnode.domain.findings import Classification, HeatMap, LabelMap, Lesion
from dicomnode.domain.imaging import Refusal, Volume
from dicomnode.engines.sidecar import Sidecar
from dicomnode.imaging.resampling import Box, Grid

Progress = Callable[[str, float], None]  # what is done now ("forward"), share of the run that is behind (0-1)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One volume for one pipeline; digest: the bundle's SHA-256."""

    volume: Volume
    sidecar: Sidecar
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInput:
    """pixels: (z, y, x) on `grid`; region: the box of it that matters, for a run that may crop.

    finished: makes `pixels[box]` what the network shall see there, given both. Only what is wanted is made: a run that crops
    reads a third of a chest.
    """

    pixels: NDArray[Any]
    grid: Grid
    region: Box | None = None
    finished: Callable[[NDArray[Any], Box], NDArray[Any]] | None = None

    def part(self, box: Box) -> NDArray[Any]:
        """What the network shall see of `box`."""
        return self.pixels[box] if self.finished is None else self.finished(self.pixels[box], box)


def whole_box(shape: tuple[int, int, int]) -> Box:
    """The box of everything."""
    z, y, x = (slice(0, size) for size in shape)
    return z, y, x


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """probabilities: (channels, z, y, x) float32 on `grid`."""

    probabilities: NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Conclusion:
    """Findings without the model's name and the timings."""

    label_maps: tuple[LabelMap, ...] = ()
    lesions: tuple[Lesion, ...] = ()
    classifications: tuple[Classification, ...] = ()
    heatmaps: tuple[HeatMap, ...] = ()
    boxes: tuple[FoundBox, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    lesions_sought: bool = False


class Reading(Protocol):
    """One kind of pipeline applied to one volume; made for each run."""

    def prepare(self) -> NetworkInput | Refusal:
        """What the network shall see, or why it shall see nothing."""
        ...

    def conclude(self, prediction: Prediction) -> Conclusion | Refusal:
        """What the network's probabilities mean, on the source grid."""
        ...
