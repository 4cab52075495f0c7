"""A JPEG-LS codec that crashes, hangs or gorges itself, and frames that make it do so."""

import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from tests.peers.processes import tool


def failing_codec(folder: Path) -> Path:
    """The library to be preloaded (LD_PRELOAD) into the process under test."""
    library = folder / "failing_codec.so"
    source = Path(__file__).with_name("failing_codec.c")
    subprocess.run([tool("gcc", "gcc libc6-dev"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def as_jpeg_ls(data_set: Dataset, does: str = "") -> Dataset:
    """The slice in JPEG-LS Lossless; `does`: what the failing codec does when it meets it."""
    stored = np.frombuffer(data_set.PixelData, np.uint16).reshape(data_set.Rows, data_set.Columns)
    frame = imagecodecs.jpegls_encode(stored)
    if does:
        words = f"codec test: {does}".encode()
        comment = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words  # COM, after SOI
        frame = frame[:2] + comment + frame[2:]
    data_set.file_meta.TransferSyntaxUID = JPEGLSLossless
    data_set.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    data_set["PixelData"].VR = "OB"
    return data_set


def recompress(path: Path, does: str = "") -> None:
    """The file at `path` in JPEG-LS."""
    data_set = pydicom.dcmread(path)
    as_jpeg_ls(data_set, does).save_as(path)
