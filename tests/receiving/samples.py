"""Small objects that modalities could send, and ways to send what they should not."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_primitives import C_STORE

from dicomnode.network.reactor import hold

ELE, ILE, EBE = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)
CT = str(CTImageStorage)


def ct(**attributes: Any) -> Dataset:
    """One 16×16 CT image; `attributes` replace or, given as None, remove elements."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = generate_uid(), generate_uid(), generate_uid()
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Test^Ada", "P-1", "19700101", "F"
    image.StudyDate, image.StudyTime, image.AccessionNumber, image.StudyID = "20260102", "101112", "ACC1", "1"
    image.Modality, image.SeriesNumber, image.InstanceNumber, image.ImageType = "CT", 1, 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.BodyPartExamined, image.SliceThickness, image.PatientPosition = "CHEST", 2.5, "HFS"
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    image.Rows = image.Columns = 16
    image.PixelSpacing, image.SamplesPerPixel, image.PhotometricInterpretation = [0.5, 0.5], 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 1
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    image.add_new("PixelData", "OW", np.arange(256, dtype=np.int16).tobytes())
    return changed(image, **attributes)


def changed(image: Dataset, **attributes: Any) -> Dataset:
    """The same object with other attributes."""
    other = copy.deepcopy(image)
    for keyword, value in attributes.items():
        if value is None:
            delattr(other, keyword)
        else:
            setattr(other, keyword, value)
    return other


def encoded(image: Dataset, transfer_syntax: str = ELE) -> bytes:
    """The data set alone, as it travels."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = transfer_syntax != EBE, transfer_syntax == ILE
    write_dataset(buffer, image)
    return bytes(buffer.getvalue())


def saved(image: Dataset, folder: Path, transfer_syntax: str = ELE) -> Path:
    """A Part 10 file of it."""
    path = folder / f"{generate_uid()}.dcm"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax
    dcmwrite(path, image, enforce_file_format=True, implicit_vr=transfer_syntax == ILE, little_endian=True)
    return path


def store_bytes(association: Any, sop_class: str, sop_instance: str, data: bytes | None, *, context_index: int = 0) -> C_STORE:
    """A C-STORE with whatever command and data; the response, its Status None if there came none."""
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    if data is not None:
        request.DataSet = io.BytesIO(data)
    hold(association)  # else its reactor takes the response, on a busy machine
    try:
        association.dimse.send_msg(request, association.accepted_contexts[context_index].context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return response if response is not None else C_STORE()


def store(association: Any, image: Dataset, **keywords: Any) -> C_STORE:
    """A proper C-STORE in Explicit VR Little Endian."""
    return store_bytes(association, image.SOPClassUID, image.SOPInstanceUID, encoded(image), **keywords)
