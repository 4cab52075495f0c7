"""Volumes and findings for tests: real headers, an asymmetric mask whose place is known, numbers computed from the voxels."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.findings import Box, Classification, Code, Findings, HeatMap, LabelMap, Lesion, ModelIdentity, Segment
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Volume, read_only
from dicomnode.domain.results import ResultRequest
from dicomnode.domain.uids import derived_uid

LUNG = Code("39607008", "SCT", "Lung")
ORGAN = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")
PRESENT, ABSENT = Code("52101004", "SCT", "Present"), Code("272519000", "SCT", "Absent")
MODEL = ModelIdentity("chest_ct", "1.0", "ab12" * 16, "dicomnode project", "DEMONSTRATION - NOT FOR CLINICAL USE", True)


def volume_of(paths: list[Path]) -> Volume:
    """The stack of single-frame CT files, sorted by position; for tests of results only (imaging has its own room)."""
    read = sorted((pydicom.dcmread(path) for path in paths), key=lambda one: float(one.ImagePositionPatient[2]))
    pixels = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in read])
    return volume_from(read, pixels.astype(np.int16))


def volume_from(headers: list[Dataset], pixels: np.ndarray) -> Volume:
    """A volume of headers in the order of their slices."""
    first = headers[0]
    row, column = (np.array(first.ImageOrientationPatient, float)[part] for part in (slice(0, 3), slice(3, 6)))
    spacing = [float(value) for value in first.PixelSpacing]
    positions = np.array([one.ImagePositionPatient for one in headers], float)
    affine = np.eye(4)
    affine[:3, 0] = (positions[-1] - positions[0]) / max(1, len(headers) - 1)
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = column * spacing[0], row * spacing[1], positions[0]
    window = [value[0] if isinstance(value, pydicom.multival.MultiValue) else value
              for value in (first.get("WindowCenter"), first.get("WindowWidth"))]  # fmt: skip
    return Volume(
        pixels=read_only(pixels),
        unit="[hnsf'U]",
        affine=affine,
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "")),
        frames=tuple(FrameRef(str(one.SOPInstanceUID), str(one.SOPClassUID)) for one in headers),
        headers=HeaderSummary(
            modality="CT",
            body_part_examined="CHEST",
            window_center=None if window[0] is None else float(window[0]),
            window_width=None if window[1] is None else float(window[1]),
        ),
        study_instance_uid=str(first.StudyInstanceUID),
        series_instance_uid=str(first.SeriesInstanceUID),
    )


def ball(shape: tuple[int, ...], center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """An ellipsoid in voxels."""
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((axis - middle) / radius) ** 2 for axis, middle, radius in zip(grid, center, radii, strict=True)) <= 1


def lungs_by_threshold(volume: Volume) -> np.ndarray:
    """1 left, 2 right: air inside the body, without care for the airways; looks like lungs on a picture."""
    from scipy import ndimage

    air = volume.pixels < -400
    labels, _ = ndimage.label(air)
    rim = np.unique(
        np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel(), labels[..., 0].ravel(), labels[..., -1].ravel()])
    )
    sizes = np.bincount(labels.ravel())
    keep = np.flatnonzero(sizes > 20000)
    inside = np.isin(labels, np.setdiff1d(keep, rim))
    inside = ndimage.binary_closing(inside, iterations=2)
    middle = int(np.flatnonzero(inside.any(axis=(0, 1))).mean())
    out = np.zeros(volume.shape, np.uint8)
    out[inside] = 1
    out[..., :middle][inside[..., :middle]] = 2
    return out


def lesion_of(volume: Volume, mask: np.ndarray, number: int, probability: float) -> Lesion:
    """Numbers of a mask; the axes are the extents of its largest slice."""
    indices = np.argwhere(mask)
    center = (volume.affine @ np.append(indices.mean(axis=0), 1))[:3]
    values = volume.pixels[mask]
    areas = mask.sum(axis=(1, 2))
    key = int(areas.argmax())
    _, height, width = np.ptp(np.argwhere(mask[key : key + 1]), axis=0) + 1
    extents = sorted((height * volume.spacing_mm[1], width * volume.spacing_mm[2]))
    return Lesion(
        label=f"Nodule {number}",
        tracking_id=f"chest_ct nodule {number}",
        tracking_uid=derived_uid(("test lesion", volume.series_instance_uid, str(number))),
        center_mm=tuple(float(value) for value in center),
        long_axis_mm=float(extents[1]),
        short_axis_mm=float(extents[0]),
        volume_ml=float(mask.sum() * volume.voxel_ml),
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        probability=probability,
        laterality="left" if center[0] > 0 else "right",
        segment=("nodules", number),
        key_slice_index=key,
    )


def findings_of(volume: Volume, lungs: np.ndarray, nodules: list[np.ndarray], probability: float = 0.93) -> Findings:
    """Two overlapping label maps (nodules lie in lungs), lesions with their numbers, one statement."""
    nodule_labels = np.zeros(volume.shape, np.uint8)
    for number, mask in enumerate(nodules, start=1):
        nodule_labels[mask] = number
        lungs = np.where(mask & (lungs == 0), np.uint8(1 if mask[..., mask.shape[2] // 2 :].any() else 2), lungs)
    lesions = tuple(
        lesion_of(volume, nodule_labels == number, number, probability - 0.07 * (number - 1))
        for number in range(1, len(nodules) + 1)
    )

    def segment(
        labels: np.ndarray, number: int, label: str, category: Code, kind: Code, color: tuple[int, int, int]
    ) -> Segment:
        voxels = int((labels == number).sum())
        lesion = next((one for one in lesions if labels is nodule_labels and one.segment == ("nodules", number)), None)
        return Segment(
            number, label, category, kind, color, voxels * volume.voxel_ml, voxels,
            anatomy=LUNG if lesion else None,
            tracking_id=lesion.tracking_id if lesion else None,
            tracking_uid=lesion.tracking_uid if lesion else None,
        )  # fmt: skip

    lung_segments = (
        segment(lungs, 1, "Left lung", ORGAN, LUNG, (102, 194, 255)),
        segment(lungs, 2, "Right lung", ORGAN, LUNG, (120, 230, 150)),
    )
    nodule_segments = tuple(
        segment(nodule_labels, number, f"Nodule {number}", ABNORMAL, NODULE, (255, 90, 90))
        for number in range(1, len(nodules) + 1)
    )
    present = bool(nodules)
    maps = [LabelMap("lungs", read_only(lungs.astype(np.uint8)), lung_segments)]
    if nodules:
        maps.append(LabelMap("nodules", read_only(nodule_labels), nodule_segments))
    return Findings(
        model=MODEL,
        label_maps=tuple(maps),
        lesions=lesions,
        classifications=(
            Classification(
                "Suspicious nodule",
                NODULE,
                "present" if present else "absent",
                PRESENT if present else ABSENT,
                probability if present else 0.08,
                0.5,
            ),
        ),
    )


def request_for(paths: list[Path], **changes: object) -> ResultRequest:
    """A request as the worker makes it."""
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}
    request = ResultRequest(
        pipeline="chest_ct",
        pipeline_version="1.0",
        version=1,
        content_time=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        node_timezone="Europe/Berlin",
        source_digests=digests,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def small_series(folder: Path, *, slices: int = 12, rows: int = 48, columns: int = 64, **changes: object) -> list[Path]:
    """A small CT series, every axis of another length, oblique to none; `changes` by keyword, None removes an element.

    A callable in `changes` is called with the slice's number (0-based, caudal first).
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(slices):
        one = _slice_header(index, rows, columns)
        one.PixelData = _slice_pixels(index, rows, columns).tobytes()
        for keyword, value in changes.items():
            _change(one, keyword, value(index) if isinstance(value, Callable) else value)  # type: ignore[arg-type]
        path = folder / f"{index:03d}.dcm"
        one.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _change(one: Dataset, keyword: str, value: object) -> None:
    if value is not None:
        setattr(one, keyword, value)
    elif keyword in one:
        delattr(one, keyword)


def _slice_pixels(index: int, rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    body = ((y - rows / 2) / (rows * 0.42)) ** 2 + ((x - columns / 2) / (columns * 0.42)) ** 2 <= 1
    pixels = np.where(body, 1024 + 40, 24).astype(np.int16)
    for middle in (0.3, 0.7):
        lung = ((y - rows / 2) / (rows * 0.25)) ** 2 + ((x - columns * middle) / (columns * 0.13)) ** 2 <= 1
        pixels[lung] = 1024 - 850
    return pixels


def _slice_header(index: int, rows: int, columns: int) -> Dataset:
    one = Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.SOPInstanceUID = f"1.2.276.0.7230010.3.1.4.99.{index + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.276.0.7230010.3.1.2.99", "1.2.276.0.7230010.3.1.3.99"
    one.FrameOfReferenceUID = "1.2.276.0.7230010.3.1.5.99"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Test^Results", "R-1", "19600102", "F"
    one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20260301", "101500", "S1", "A1"
    one.ReferringPhysicianName, one.PositionReferenceIndicator = "", ""
    one.ImageType, one.Modality, one.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT", "Test scanner"
    one.BodyPartExamined, one.SeriesNumber, one.InstanceNumber, one.AcquisitionNumber = "CHEST", 2, 100 - index, 1
    one.SliceThickness, one.KVP, one.PatientPosition = 3.0, 120, "HFS"
    one.PixelSpacing, one.ImageOrientationPatient = [0.8, 0.7], [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [-20.5, -30.25, -200 + 2.5 * index]
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.RescaleIntercept, one.RescaleSlope, one.RescaleType = -1024, 1, "HU"
    one.WindowCenter, one.WindowWidth = -600, 1500
    return one


def small_findings(volume: Volume, nodules: int = 2) -> Findings:
    """Lungs and asymmetric nodules on a small series."""
    lungs = np.zeros(volume.shape, np.uint8)
    z, rows, columns = volume.shape
    lungs[1:-1, rows // 4 : rows * 3 // 4, columns // 6 : columns // 2 - 3] = 2
    lungs[1:-1, rows // 4 : rows * 3 // 4, columns // 2 + 3 : columns * 5 // 6] = 1
    places = [((z * 0.3, rows * 0.4, columns * 0.3), (2, 4, 3)), ((z * 0.7, rows * 0.6, columns * 0.7), (1.6, 3, 5))]
    return findings_of(volume, lungs, [ball(volume.shape, *place) for place in places[:nodules]])


def with_everything(volume: Volume, findings: Findings) -> Findings:
    """The findings with a heat map and a box."""
    heat = (ball(volume.shape, (volume.shape[0] / 2, volume.shape[1] / 2, volume.shape[2] / 3), (3, 8, 8)) * 220).astype(
        np.uint8
    )
    box = Box("Box 1", (3, 5, 6), (6, 20, 22), 0.71)
    return replace(findings, heatmaps=(HeatMap("activation", read_only(heat), 0.0, 1 / 255),), boxes=(box,))
