"""Studies with results, as a PACS holds them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dicomnode import imaging
from dicomnode.domain.findings import Box, Classification, Findings, HeatMap, LabelMap, Segment
from dicomnode.domain.imaging import Image2D, Refusal, Volume, read_only
from dicomnode.domain.results import ResultObject
from dicomnode.phantom import Phantom, ThoraxSpec, thorax, write_study
from dicomnode.results import build, verify
from tests.results.cases import (
    ABNORMAL,
    MODEL,
    NODULE,
    ORGAN,
    PRESENT,
    ball,
    findings_of,
    lesion_of,
    request_for,
    volume_of,
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Source files, what was found, what was made of it."""

    sources: list[Path]
    image: Volume | Image2D
    findings: Findings
    objects: tuple[ResultObject, ...]

    @property
    def files(self) -> list[Path]:
        """Sources, and the results that a destination gets at once."""
        return [*self.sources, *(one.path for one in self.objects if one.profiles is None or one.profiles)]

    @property
    def segments(self) -> list[Segment]:
        """All that are shown."""
        return [segment for one in self.findings.label_maps for segment in one.segments]


def phantom_study(folder: Path, *, slices: int = 24, size: int = 128, nodules: int = 2, **request: object) -> Study:
    """A synthetic chest CT with its planted lungs and nodules as findings."""
    spec = ThoraxSpec(
        seed=3, slices=slices, size=size, slice_spacing_mm=216 / slices, pixel_spacing_mm=384 / size, nodule_count=nodules
    )
    phantom = thorax(spec)
    sources = write_study(phantom, folder / "ct")
    volume = volume_of(sources)
    return _study(sources, volume, _planted(phantom, volume), folder, **request)


def _planted(phantom: Phantom, volume: Volume) -> Findings:
    lungs = np.where(phantom.labels <= 2, phantom.labels, 0).astype(np.uint8)
    masks = [phantom.labels == one.label for one in phantom.nodules]
    return findings_of(volume, lungs, [mask for mask in masks if mask.any()])


def magnetic_resonance_study(sources: Sequence[Path], folder: Path) -> Study:
    """A real MR series; what was found in it is drawn: an organ in the middle and a lesion in its left half."""
    image = _loaded(sources)
    assert isinstance(image, Volume)
    z, rows, columns = image.shape
    organ = ball(image.shape, (z / 2, rows * 0.5, columns * 0.5), (z * 0.4, rows * 0.11, columns * 0.13))
    mask = ball(image.shape, (z / 2, rows * 0.52, columns * 0.55), (z * 0.2, rows * 0.035, columns * 0.05))
    lesion = replace(
        lesion_of(image, mask, 1, 0.78), label="Lesion 1", tracking_id="drawn lesion 1", segment=("lesions", 1)
    )  # fmt: skip
    maps = (
        LabelMap("organ", read_only(organ.astype(np.uint8)), (_segment(image, organ, "Organ", (102, 194, 255)),)),
        LabelMap("lesions", read_only(mask.astype(np.uint8)), (
            replace(
                _segment(image, mask, "Lesion 1", (255, 90, 90)), category=ABNORMAL, type=NODULE,
                tracking_id=lesion.tracking_id, tracking_uid=lesion.tracking_uid,
            ),
        )),
    )  # fmt: skip
    statement = Classification("Suspicious lesion", NODULE, "present", PRESENT, 0.78, 0.5)
    return _study(list(sources), image, Findings(MODEL, maps, lesions=(lesion,), classifications=(statement,)), folder)


def radiograph_study(source: Path, folder: Path) -> Study:
    """A real radiograph; what was found in it is drawn: an opacity with its mask, a detector's box, a heat map."""
    image = _loaded([source])
    assert isinstance(image, Image2D)
    rows, columns = image.pixels.shape
    opacity = ball((1, rows, columns), (0, rows * 0.62, columns * 0.7), (1, rows * 0.07, columns * 0.06))
    y, x = np.mgrid[:rows, :columns]
    far = ((y - rows * 0.62) / (rows * 0.12)) ** 2 + ((x - columns * 0.7) / (columns * 0.12)) ** 2
    heat = (255 * np.exp(-far)).astype(np.uint8)[None]
    box = Box("Opacity", (0, int(rows * 0.5), int(columns * 0.58)), (1, int(rows * 0.75), int(columns * 0.82)), 0.86)
    findings = Findings(
        MODEL,
        (LabelMap("opacity", read_only(opacity.astype(np.uint8)), (_segment(image, opacity, "Opacity", (255, 90, 90)),)),),
        classifications=(Classification("Opacity", NODULE, "present", PRESENT, 0.86, 0.5),),
        heatmaps=(HeatMap("activation", read_only(heat), 0.0, 1 / 255),),
        boxes=(box,),
        lesions_sought=False,
    )
    return _study([source], image, findings, folder)


def _segment(image: Volume | Image2D, mask: np.ndarray, label: str, color: tuple[int, int, int]) -> Segment:
    voxels = int(mask.sum())
    volume_ml = voxels * image.voxel_ml if isinstance(image, Volume) else 0.0
    return Segment(1, label, ORGAN, ORGAN, color, volume_ml, voxels)


def _loaded(sources: Sequence[Path]) -> Volume | Image2D:
    (series,) = imaging.scan(list(sources)).series
    image = imaging.load(series)
    assert not isinstance(image, Refusal), image
    return image


def _study(sources: list[Path], image: Volume | Image2D, findings: Findings, folder: Path, **request: object) -> Study:
    objects = build(findings, image, sources, request_for(sources, **request), folder / "results")
    verify(objects, findings, image, sources)
    return Study(sources, image, findings, objects)
