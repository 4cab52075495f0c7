"""What is sent: an object encoded once, with the places where its SOP Instance UID stands."""

import hashlib
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from dicomnode.bench.load import FILLER_PERIOD

COUNTER_DIGITS = 8
_FILLER_BLOCK = bytes(range(FILLER_PERIOD)) * 4096
SYNTAX = str(ExplicitVRLittleEndian)


@dataclass(frozen=True, slots=True)
class SentObject:
    """A data set in Explicit VR Little Endian: `head`, then `filler_bytes` of the bytes 0 to 255 over and over.

    uid: the SOP Instance UID in it; its last COUNTER_DIGITS digits count the images.
    """

    name: str
    sop_class: str
    uid: str
    head: bytes
    filler_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the whole data set."""
        return len(self.head) + self.filler_bytes

    def uid_of(self, index: int) -> str:
        """The SOP Instance UID of the image with this index."""
        return f"{self.uid[:-COUNTER_DIGITS]}{index:0{COUNTER_DIGITS}d}"

    def sha256_of(self, index: int) -> str:
        """The digest of the data set of the image with this index."""
        digest = hashlib.sha256(self.head.replace(self.uid.encode(), self.uid_of(index).encode()))
        for start in range(0, self.filler_bytes, len(_FILLER_BLOCK)):
            digest.update(_FILLER_BLOCK[: self.filler_bytes - start])
        return digest.hexdigest()

    def saved(self, path: Path) -> Path:
        """A Part 10 file, for senders that read files. Raises ValueError for objects with filler."""
        if self.filler_bytes:
            raise ValueError("only whole objects are saved")
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\0\1"
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(self.sop_class), UID(self.uid)
        meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID("1.2.3.4")
        body = _encoded(meta)
        group_length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body))
        path.write_bytes(bytes(128) + b"DICM" + group_length + body + self.head)
        return path


def _counted_uid() -> str:
    return f"2.25.1{secrets.randbelow(10**20):020d}{0:0{COUNTER_DIGITS}d}"  # 34 characters: even, so never padded


def _encoded(data_set: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, data_set)
    return bytes(buffer.getvalue())


def _common(sop_class: UID, modality: str, rows: int) -> Dataset:
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID, image.SOPInstanceUID = sop_class, UID(_counted_uid())
    image.StudyInstanceUID, image.SeriesInstanceUID = UID(_counted_uid()), UID(_counted_uid())
    image.FrameOfReferenceUID = UID(_counted_uid())
    image.StudyDate = image.SeriesDate = image.ContentDate = "20260102"
    image.StudyTime = image.SeriesTime = image.ContentTime = "101112"
    image.AccessionNumber, image.StudyID, image.Modality = "BENCH1", "1", modality
    image.Manufacturer, image.ManufacturerModelName, image.StationName = "Bench", "Load generator", "BENCH"
    image.StudyDescription, image.SeriesDescription, image.BodyPartExamined = "Bench", "Axial 1.0", "CHEST"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Bench^Load", "BENCH", "19700101", "O"
    image.SliceThickness, image.PatientPosition, image.SoftwareVersions = 1, "HFS", "1"
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.ImagePositionPatient, image.ImageOrientationPatient = [-180, -180, 0], [1, 0, 0, 0, 1, 0]
    image.Rows = image.Columns = rows
    image.PixelSpacing, image.SamplesPerPixel, image.PhotometricInterpretation = [0.7, 0.7], 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.WindowCenter, image.WindowWidth = 40, 400
    return image


def _single_frame(name: str, sop_class: UID, modality: str, rows: int) -> SentObject:
    image = _common(sop_class, modality, rows)
    noise = np.random.default_rng(1).integers(0, 4096, rows * rows, dtype=np.uint16)
    image.add_new("PixelData", "OW", noise.tobytes())
    return SentObject(name, str(sop_class), str(image.SOPInstanceUID), _encoded(image))


def ct() -> SentObject:
    """A CT image of 512×512, 0.5 MB."""
    return _single_frame("CT", CTImageStorage, "CT", 512)


def mr() -> SentObject:
    """An MR image of 128×128, 33 KB."""
    return _single_frame("MR", MRImageStorage, "MR", 128)


def multi_frame(size_bytes: int = 1 << 30) -> SentObject:
    """Frames of 512×512 with `size_bytes` of pixels: 2,048 of them for 1 GiB."""
    image = _common(MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT", 512)
    image.NumberOfFrames = size_bytes // (512 * 512 * 2)
    pixel_data = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size_bytes)
    sop_class = str(MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    return SentObject("GB", sop_class, str(image.SOPInstanceUID), _encoded(image) + pixel_data, size_bytes)


def renewed(sent: SentObject) -> SentObject:
    """The same object under UIDs that no earlier run used."""
    uid = _counted_uid()
    return replace(sent, uid=uid, head=sent.head.replace(sent.uid.encode(), uid.encode()))


KINDS: dict[str, Callable[[], SentObject]] = {"CT": ct, "MR": mr, "GB": multi_frame}
