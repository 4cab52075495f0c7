"""Studies with results, as a PACS holds them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Volume
from dicomnode.domain.results import ResultObject
from dicomnode.phantom import Phantom, ThoraxSpec, thorax, write_study
from dicomnode.results import build, verify
from tests.results.cases import findings_of, request_for, volume_of


@dataclass(frozen=True)
class Study:
    """Source files, what was found, what was made of it."""

    sources: list[Path]
    volume: Volume
    findings: Findings
    objects: tuple[ResultObject, ...]

    @property
    def files(self) -> list[Path]:
        """Sources, and the results that a destination gets at once."""
        return [*self.sources, *(one.path for one in self.objects if one.profiles is None or one.profiles)]


def phantom_study(folder: Path, *, slices: int = 24, size: int = 128, nodules: int = 2, **request: object) -> Study:
    """A synthetic chest CT with its planted lungs and nodules as findings."""
    spec = ThoraxSpec(
        seed=3, slices=slices, size=size, slice_spacing_mm=216 / slices, pixel_spacing_mm=384 / size, nodule_count=nodules
    )
    phantom = thorax(spec)
    sources = write_study(phantom, folder / "ct")
    volume = volume_of(sources)
    findings = _planted(phantom, volume)
    objects = build(findings, volume, sources, request_for(sources, **request), folder / "results")
    verify(objects, findings, volume, sources)
    return Study(sources, volume, findings, objects)


def _planted(phantom: Phantom, volume: Volume) -> Findings:
    lungs = np.where(phantom.labels <= 2, phantom.labels, 0).astype(np.uint8)
    masks = [phantom.labels == one.label for one in phantom.nodules]
    return findings_of(volume, lungs, [mask for mask in masks if mask.any()])
