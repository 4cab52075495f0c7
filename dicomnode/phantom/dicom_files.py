"""Phantoms as DICOM: axial CT series, a localizer, a coronal reformat; every file a valid CT Image Storage instance.

Equipment and UIDs say that a phantom wrote them: UIDs carry the phantoms' own mark, so they are the same for the same phantom
and never those of this software's results.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.domain.uids import PHANTOM_MARK, derived_uid
from dicomnode.phantom.spec import PatientText, Phantom

MANUFACTURER = "dicomnode phantom"
_RESCALE_INTERCEPT = -1024

Orientation = Literal["axial", "prone"]


def phantom_uid(*parts: object) -> str:
    """A UID that follows from `parts` alone and carries the phantoms' mark."""
    return derived_uid([str(part) for part in parts], mark=PHANTOM_MARK)


def write_study(
    phantom: Phantom,
    folder: Path,
    *,
    patient: PatientText | None = None,
    study_uid: str | None = None,
    series_uid: str | None = None,
    series_description: str = "SYNTHETIC THORAX",
    kernel: str | None = None,
    series_number: int = 1,
    orientation: Orientation = "axial",
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    compress: str | None = None,
) -> list[Path]:
    """Write one axial series, a file per slice, and give the paths in the order of InstanceNumber (cranial slice first).

    `folder` is made if missing; files are named <series number>-<instance number>.dcm. Series of one phantom seed share the
    study and frame of reference unless UIDs are given. `orientation="prone"` turns rows and columns, not the patient's
    coordinates. `compress` is a transfer syntax UID that pydicom can encode, e.g. RLE Lossless.
    """
    header = _series_header(phantom, patient, study_uid, series_uid, series_number)
    header.ImageType = list(image_type)
    header.SeriesDescription = series_description
    header.ConvolutionKernel = kernel or ("B70f" if phantom.spec.kernel == "sharp" else "B31f")
    header.PatientPosition = "HFP" if orientation == "prone" else "HFS"
    sign = -1 if orientation == "prone" else 1
    header.ImageOrientationPatient = [sign, 0, 0, 0, sign, 0]
    spacing = phantom.spacing_mm
    header.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[2])]
    header.SliceThickness = _decimal(spacing[0])
    paths = []
    depth, rows, columns = phantom.hu.shape
    for number, index in enumerate(range(depth - 1, -1, -1), start=1):
        corner = phantom.affine @ (index, 0, 0, 1) if sign > 0 else phantom.affine @ (index, rows - 1, columns - 1, 1)
        pixels = phantom.hu[index] if sign > 0 else phantom.hu[index, ::-1, ::-1]
        paths.append(_write_slice(header, folder, number, corner[:3], pixels, compress))
    return paths


def write_localizer(
    phantom: Phantom, folder: Path, *, patient: PatientText | None = None, study_uid: str | None = None, series_number: int = 99
) -> Path:
    """Write the scout view: a frontal projection (coronal plane) with ImageType ORIGINAL\\PRIMARY\\LOCALIZER."""
    header = _series_header(phantom, patient, study_uid, None, series_number)
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    header.SeriesDescription = "Topogram"
    header.ConvolutionKernel = "T20f"
    del header.RescaleType  # PS3.3 C.11.1.1.2: a localizer's values are not HU
    header.PatientPosition = "HFS"
    spacing = phantom.spacing_mm
    attenuation = 0.02 * np.clip(phantom.hu.astype(np.float32) + 1000, 0, None) / 1000  # per mm of water
    absorbed = 1.0 - np.exp(-0.35 * attenuation.sum(axis=1) * spacing[1])
    image = _square_pixels((absorbed * 1500 - 700).astype(np.float32)[::-1], spacing[0] / spacing[2])
    return _write_coronal(header, folder, 1, phantom, image.astype(np.int16), phantom.hu.shape[1] // 2, spacing[1])


def write_coronal_reformat(
    phantom: Phantom,
    folder: Path,
    *,
    patient: PatientText | None = None,
    study_uid: str | None = None,
    series_number: int = 50,
    step: int = 8,
) -> list[Path]:
    """Write coronal images cut from the axial ones, every `step` rows: ImageType DERIVED\\SECONDARY\\REFORMATTED."""
    header = _series_header(phantom, patient, study_uid, None, series_number)
    header.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]
    header.SeriesDescription = "Coronal MPR"
    header.ConvolutionKernel = "B31f"
    header.PatientPosition = "HFS"
    spacing = phantom.spacing_mm
    paths = []
    for number, row in enumerate(range(0, phantom.hu.shape[1], step), start=1):
        image = _square_pixels(phantom.hu[::-1, row].astype(np.float32), spacing[0] / spacing[2])
        paths.append(_write_coronal(header, folder, number, phantom, np.round(image).astype(np.int16), row, spacing[1] * step))
    return paths


def _write_coronal(
    header: Dataset, folder: Path, number: int, phantom: Phantom, image: NDArray[np.int16], row: int, thickness: float
) -> Path:
    """A coronal image: columns run to the patient's left, rows to the feet."""
    header.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    pixel = _decimal(phantom.spacing_mm[2])
    header.PixelSpacing = [pixel, pixel]
    header.SliceThickness = _decimal(thickness)
    corner = phantom.affine @ (phantom.hu.shape[0] - 1, row, 0, 1)
    return _write_slice(header, folder, number, corner[:3], image, None)


def _square_pixels(image: NDArray[np.float32], stretch: float) -> NDArray[np.float32]:
    """Rows interpolated so that both pixel sides are equal; the first row keeps its place."""
    at = np.clip(np.arange(round(image.shape[0] * stretch)) / stretch, 0, image.shape[0] - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, image.shape[0] - 1)
    part = (at - below)[:, None].astype(np.float32)
    return np.asarray(image[below] * (1 - part) + image[above] * part, dtype=np.float32)


def _series_header(
    phantom: Phantom, patient: PatientText | None, study_uid: str | None, series_uid: str | None, series_number: int
) -> Dataset:
    """The attributes that all instances of a series share (PS3.3 A.3.3, the CT Image IOD's modules)."""
    text = patient or PatientText()
    spec = phantom.spec
    who = spec.seed if spec.anatomy_seed is None else spec.anatomy_seed
    header = Dataset()
    header.SpecificCharacterSet = text.character_set
    header.PatientName = text.patient_name
    header.PatientID = text.patient_id or f"PHANTOM-{who}"
    header.PatientBirthDate = text.birth_date
    header.PatientSex = text.sex
    header.StudyInstanceUID = study_uid or phantom_uid("study", who, spec.region)
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = text.study_date
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = text.study_time
    header.ReferringPhysicianName = text.referring_physician
    header.StudyID = text.study_id
    header.AccessionNumber = text.accession_number
    header.StudyDescription = text.study_description
    header.Modality = "CT"
    header.SeriesInstanceUID = series_uid or phantom_uid("series", header.StudyInstanceUID, series_number, spec)
    header.SeriesNumber = series_number
    header.BodyPartExamined = spec.region.upper()
    header.FrameOfReferenceUID = phantom_uid("frame of reference", header.StudyInstanceUID)
    header.PositionReferenceIndicator = ""
    header.Manufacturer = MANUFACTURER
    header.ManufacturerModelName = "synthetic thorax"
    header.SoftwareVersions = "1"
    header.DeviceSerialNumber = "0"
    header.InstitutionName = "SYNTHETIC"
    header.AcquisitionNumber = series_number
    header.KVP = "120"
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = _RESCALE_INTERCEPT, 1, "HU"
    header.WindowCenter, header.WindowWidth = -500, 1500
    if spec.contrast_hu is not None and spec.contrast_hu > 80:
        header.ContrastBolusAgent = "SYNTHETIC CONTRAST"
    for keyword, value in text.extra.items():
        setattr(header, keyword, value)
    return header


def _write_slice(
    header: Dataset, folder: Path, number: int, corner: NDArray[np.float64], hu: NDArray[np.int16], compress: str | None
) -> Path:
    """One file: the series header, the slice's place, and its pixels as unsigned 16 bit with 12 or 16 bits stored."""
    dataset = Dataset()
    dataset.update(header)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = phantom_uid("instance", header.SeriesInstanceUID, number)
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [_decimal(value) for value in corner]
    dataset.SliceLocation = _decimal(float(corner[2]))
    signed = int(hu.min()) < _RESCALE_INTERCEPT  # padding outside the scan circle, e.g. -3024
    stored = hu.astype(np.int32) - _RESCALE_INTERCEPT
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (16, 16, 15) if signed else (16, 12, 11)
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{int(header.SeriesNumber):03d}-{number:04d}.dcm"
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128)
    if compress is not None:
        file.compress(compress, generate_instance_uid=False)
    file.save_as(path, enforce_file_format=True)
    return path


def _decimal(value: float) -> str:
    """A DS value (PS3.5 6.2: at most 16 characters)."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"
