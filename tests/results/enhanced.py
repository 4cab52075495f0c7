"""Enhanced MR objects (PS3.3 A.36.2) with functional groups where real scanners put them, and where they rarely do."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.276.0.7230010.3.1.4.77"
ROWS, COLUMNS, FRAMES = 40, 56, 9
SPACING, STEP_MM = (1.5, 1.25), 4.0
# A coronal slab that is tilted: no axis of the grid is one of the patient's.
ROW, COLUMN = np.array([0.96, 0.28, 0.0]), np.array([0.0, 0.0, -1.0])
FIRST = np.array([-60.0, 35.5, 80.25])
NORMAL = np.cross(ROW, COLUMN)


def item(**elements: object) -> list[Dataset]:
    """A sequence of one item."""
    one = Dataset()
    for keyword, value in elements.items():
        setattr(one, keyword, value)
    return [one]


def enhanced_mr(
    path: Path,
    *,
    order: Sequence[int] = range(FRAMES),
    per_frame: Sequence[str] = (),
    change: Callable[[Dataset], None] = lambda _: None,
    number: int = 1,
) -> Path:
    """One object. order: place along the normal of each stored frame. per_frame: groups that each frame has for itself.

    change: last touch before it is written. number: its Instance Number; objects of other numbers are of the same series.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _header(number)
    groups = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [float(one) for one in (*ROW, *COLUMN)]},
        "PixelMeasuresSequence": {"PixelSpacing": list(SPACING), "SliceThickness": STEP_MM},
        "PixelValueTransformationSequence": {"RescaleIntercept": 0, "RescaleSlope": 0.5, "RescaleType": "US"},
        "FrameVOILUTSequence": {"WindowCenter": 400, "WindowWidth": 800},
    }
    shared, frames = Dataset(), []
    for keyword, elements in groups.items():
        if keyword not in per_frame:
            setattr(shared, keyword, item(**elements))
    for place in order:
        frame = Dataset()
        position = [round(float(one), 4) for one in FIRST + place * STEP_MM * NORMAL]
        frame.PlanePositionSequence = item(ImagePositionPatient=position)
        frame.FrameContentSequence = item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=place + 1)
        for keyword in per_frame:
            setattr(frame, keyword, item(**groups[keyword]))
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = np.stack([stored(place) for place in order]).tobytes()
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def stored(place: int) -> np.ndarray:
    """Stored values (y, x) of the frame at this place: no two are alike."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    body = ((y - 20) / 17) ** 2 + ((x - 28) / 24) ** 2 <= 1
    return np.where(body, 500 + 20 * place + 3 * x, 40).astype(np.uint16)


def _header(number: int) -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = EnhancedMRImageStorage, f"{ROOT}.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.0.1", f"{ROOT}.0.2"
    one.FrameOfReferenceUID, one.PositionReferenceIndicator = f"{ROOT}.0.3", ""
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Test^Enhanced", "E-1", "19710203", "M"
    one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20260301", "101500", "S1", "A1"
    one.ReferringPhysicianName, one.Manufacturer, one.Modality = "", "Test scanner", "MR"
    one.ImageType, one.BodyPartExamined = ["ORIGINAL", "PRIMARY", "T2", "NONE"], "BRAIN"
    one.SeriesNumber, one.InstanceNumber, one.ContentDate, one.ContentTime = 4, number, "20260301", "101700"
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    return one
