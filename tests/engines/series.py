"""Small DICOM series of any orientation, written from arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from dicomnode.phantom import phantom_uid

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "MG": DigitalMammographyXRayImageStorageForPresentation}


def write_series(
    folder: Path,
    pixels: NDArray[Any],
    affine: NDArray[np.float64],
    modality: str = "CT",
    name: str = "a",
    description: str = "",
) -> Path:
    """One file a slice; pixels: (z, y, x); affine: z, y, x → LPS mm."""
    folder.mkdir(parents=True)
    for index, plane in enumerate(pixels):
        dataset = _header(modality, name, index + 1, plane)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        dataset.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[2]:.10g}"]
        dataset.SliceThickness = f"{spacing[0]:.10g}"
        directions = (affine[:3, :3] / spacing)[:, [2, 1]].T.ravel()
        dataset.ImageOrientationPatient = [f"{value:.12f}" for value in directions]
        dataset.ImagePositionPatient = [f"{value:.10f}" for value in (affine @ (index, 0, 0, 1))[:3]]
        dataset.FrameOfReferenceUID = phantom_uid("frame", "tests")
        dataset.PositionReferenceIndicator = ""
        if description:
            dataset.SeriesDescription = description
        _save(dataset, folder / f"{index:03d}.dcm")
    return folder


def write_radiograph(folder: Path, pixels: NDArray[Any]) -> Path:
    """A mammogram; pixels: (y, x)."""
    folder.mkdir(parents=True)
    dataset = _header("MG", "mg", 1, pixels)
    dataset.ImagerPixelSpacing = ["0.1", "0.1"]
    dataset.PatientOrientation = ["P", "F"]
    dataset.ImageLaterality = "L"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PresentationLUTShape = "IDENTITY"
    _save(dataset, folder / "mg.dcm")
    return folder


def _header(modality: str, name: str, number: int, plane: NDArray[Any]) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CLASSES[modality]
    dataset.SOPInstanceUID = phantom_uid("instance", modality, name, number)
    dataset.StudyInstanceUID = phantom_uid("study", "tests")
    dataset.SeriesInstanceUID = phantom_uid("series", modality, name)
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "Test^Bundle", "B1", "", ""
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20260101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "A1", ""
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, number, 1
    dataset.Manufacturer, dataset.BodyPartExamined = "TESTS", "ABDOMEN"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    if modality == "CT":
        dataset.RescaleType = "HU"
    dataset.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
    return dataset


def _save(dataset: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)
