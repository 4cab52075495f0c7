"""Which real series may teach the model, what is known in them, and how they become training scans.

Only series under CC BY; the attribution they ask for stands in NOTICE and in the bundle's model card.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread

from dicomnode import imaging
from dicomnode.domain.imaging import Refusal, Volume
from dicomnode.learning.real import KnownFinding, RealScan


@dataclass(frozen=True, slots=True)
class RealSeries:
    """One series of the real data. `acquisition`: only that Acquisition Number (0020,0012), where a series mixes several."""

    folder: str
    findings: tuple[KnownFinding, ...] = ()
    is_chest: bool = True
    acquisition: int | None = None


REAL_SERIES = (
    # Four readers agree on one solid nodule of about 23 mm (LIDC-IDRI annotations).
    RealSeries("ct_chest_lidc_0001", (KnownFinding((56.4, 86.4, -115.8), 17.0, label=True),)),
    # No annotation in the collection; a round mass of about 22 mm in the left lung, seen by eye.
    RealSeries("ct_chest_cmbcrc_01068", (KnownFinding((95.1, -3.0, -109.75), 15.0, label=True),)),
    # The collection's tumour boxes, right lung: a sphere around them is ignored, its border to vessels is not known.
    RealSeries("ct_chest_lungpetctdx_a0002", (KnownFinding((-62.6, -97.3, 212.0), 46.7, label=False),)),
    # Two scan ranges in one series: the first acquisition alone is a clean stack. Tumour and effusion on the right, unmarked.
    # Two opacities in the left lung, seen by eye, of unknown nature.
    RealSeries(
        "ct_chest_rider_0109",
        (KnownFinding((78.0, 1.0, -151.0), 12.0, label=False), KnownFinding((54.0, 52.0, -120.0), 9.0, label=False)),
        acquisition=1,
    ),
    RealSeries("ct_abdomen_crlm1004", is_chest=False),
)


def available(real_data: Path | None) -> tuple[RealSeries, ...]:
    """The series of the table that lie in `real_data`, in the table's order."""
    if real_data is None:
        return ()
    return tuple(series for series in REAL_SERIES if (real_data / series.folder).is_dir())


def load_volume(real_data: Path, series: RealSeries) -> Volume | Refusal:
    """The series through the node's own loading."""
    return load_instances(_files(real_data / series.folder, series.acquisition))


def load_instances(files: list[Path]) -> Volume | Refusal:
    """One series from its files, through the node's own loading."""
    found = imaging.scan(files).series
    if len(found) != 1:
        raise ValueError(f"{files[0].parent} holds {len(found)} series, one was expected")
    loaded = imaging.load(found[0])
    if isinstance(loaded, Volume | Refusal):
        return loaded
    raise ValueError(f"{files[0].parent} is no volume")


def _files(folder: Path, acquisition: int | None) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if acquisition is None:
        return files
    return [path for path in files if int(dcmread(path, stop_before_pixels=True).AcquisitionNumber) == acquisition]


def training_scan(real_data: Path, series: RealSeries) -> RealScan:
    """The series as a training scan. Raises ValueError with the node's own words where it is refused or not axial."""
    volume = load_volume(real_data, series)
    if isinstance(volume, Refusal):  # the data's fault, not the caller's type
        raise ValueError(  # noqa: TRY004
            f"{series.folder}: {volume.message}"
        )
    directions = volume.affine[:3, :3]
    expected = np.fliplr(np.eye(3)) * np.array(volume.spacing_mm)
    if not np.allclose(directions, expected, atol=1e-3):
        raise ValueError(f"{series.folder}: not axial with x to the left, y to the back, z to the head")
    x, y, z = (float(value) for value in volume.affine[:3, 3])
    hu = np.clip(volume.pixels, -1024, 3071).astype(np.int16)
    return RealScan(series.folder, hu, volume.spacing_mm, (z, y, x), series.findings, series.is_chest)
