"""Small DICOM files for tests: slices of a series that are right, and what each test makes wrong on top."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.imaging import SeriesRef
from dicomnode.imaging import scan

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ROOT = "1.2.826.0.1.3680043.8.498.77"

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)


@dataclass
class Slices:
    """A CT series to be written: `origin` + index × `step_mm` along the normal of `orientation`."""

    number: int = 10
    step_mm: float = 2.5
    orientation: Sequence[float] = AXIAL
    origin: Sequence[float] = (-40.0, -30.0, -100.0)
    rows: int = 24
    columns: int = 32
    pixel_spacing: tuple[float, float] = (1.25, 0.75)
    elements: dict[str, Any] = field(default_factory=dict)
    seed: int = 7

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])

    def stored(self, index: int) -> NDArray[np.int16]:
        """Values that no two slices share."""
        values = np.random.default_rng([self.seed, index]).integers(-200, 200, (self.rows, self.columns))
        return (values + 1024).astype(np.int16)

    def data_sets(self) -> list[Dataset]:
        return [self.data_set(index) for index in range(self.number)]

    def data_set(self, index: int) -> Dataset:
        position = np.asarray(self.origin, float) + index * self.step_mm * self.normal
        data_set = image(CT_IMAGE, self.stored(index), f"{ROOT}.3.{self.seed}.{index + 1}")
        data_set.Modality = "CT"
        data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data_set.InstanceNumber = index + 1
        data_set.FrameOfReferenceUID = f"{ROOT}.4"
        data_set.ImagePositionPatient = [decimal(value) for value in position]
        data_set.ImageOrientationPatient = [decimal(value) for value in self.orientation]
        data_set.PixelSpacing = list(self.pixel_spacing)
        data_set.SliceThickness = self.step_mm
        data_set.RescaleSlope, data_set.RescaleIntercept = 1, -1024
        for keyword, value in self.elements.items():
            setattr(data_set, keyword, value)
        return data_set


def decimal(value: float) -> str:
    """At most 16 characters, as DS allows."""
    return f"{value:.9g}"


def image(sop_class: str, stored: NDArray[Any], sop_instance: str) -> Dataset:
    """A greyscale image with UIDs, ready to be saved; `stored` (rows, columns) or (frames, rows, columns)."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.SOPClassUID, data_set.SOPInstanceUID = sop_class, sop_instance
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2"
    data_set.PatientID = "TEST"
    put_pixels(data_set, stored)
    return data_set


def put_pixels(data_set: Dataset, stored: NDArray[Any]) -> None:
    *frames, data_set.Rows, data_set.Columns = stored.shape
    if frames:
        data_set.NumberOfFrames = frames[0]
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * stored.dtype.itemsize
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = bits, bits, bits - 1
    data_set.PixelRepresentation = int(stored.dtype.kind == "i")
    data_set.add_new("PixelData", "OW", stored.tobytes() + b"\0" * (stored.nbytes % 2))


def renew(data_set: Dataset, number: int) -> Dataset:
    """Gives a copied data set an identity of its own."""
    data_set.SOPInstanceUID = f"{ROOT}.9.{number}"
    data_set.InstanceNumber = number
    return data_set


def save(folder: Path, data_sets: Sequence[Dataset], shuffle: Callable[[list[Path]], None] | None = None) -> SeriesRef:
    """Writes the data sets, one file each, and gives the one series that `scan` finds in them."""
    paths = []
    for index, data_set in enumerate(data_sets):
        data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        paths.append(folder / f"{index:04d}.dcm")
        data_set.save_as(paths[-1], enforce_file_format=True)
    if shuffle is not None:
        shuffle(paths)
    found = scan(paths)
    assert not found.ignored
    (series,) = found.series
    return series
