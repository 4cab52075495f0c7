"""A slice's groups come again with every segment and are read once: what is wrong in a later frame alone is still seen."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.results import ResultKind
from dicomnode.results import verify
from tests.results.conftest import Case
from tests.results.test_checks import tampered


def later(dataset: Dataset) -> Dataset:
    """The last frame: its slice has frames of earlier segments too."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    names = [one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for one in frames]
    assert names[-1] in names[:-1]
    frame: Dataset = frames[-1]
    return frame


def shift(dataset: Dataset) -> None:
    later(dataset).PlanePositionSequence[0].ImagePositionPatient[2] += 2.5


def name_another_slice(dataset: Dataset) -> None:
    first = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source = later(dataset).DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID != first.ReferencedSOPInstanceUID
    source.ReferencedSOPInstanceUID = first.ReferencedSOPInstanceUID


def name_a_stranger(dataset: Dataset) -> None:
    later(dataset).DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"


def turn(dataset: Dataset) -> None:
    plane = Dataset()
    plane.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    later(dataset).PlaneOrientationSequence = pydicom.Sequence([plane])


def stretch(dataset: Dataset) -> None:
    measures = Dataset()
    measures.PixelSpacing = [0.7, 0.8]
    later(dataset).PixelMeasuresSequence = pydicom.Sequence([measures])


def flip_a_voxel(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[-3] ^= 128
    dataset.PixelData = bytes(pixels)


def call_it_another_segment(dataset: Dataset) -> None:
    identification = later(dataset).SegmentIdentificationSequence[0]
    identification.ReferencedSegmentNumber = identification.ReferencedSegmentNumber - 1


def swap_two_segments(dataset: Dataset) -> None:
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        identification = frame.SegmentIdentificationSequence[0]
        number = identification.ReferencedSegmentNumber
        identification.ReferencedSegmentNumber = {1: 2, 2: 1}.get(number, number)


def unreadable(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    source = later(dataset).DerivationImageSequence[0].SourceImageSequence[0]
    source.PurposeOfReferenceCodeSequence[0].CodeMeaning = "Source image \ufffd"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shift, "lies elsewhere"),
        (name_another_slice, "lies elsewhere|differs from the model's mask"),
        (name_a_stranger, "not in the source series"),
        (turn, "turned against"),
        (stretch, "another pixel spacing"),
        (flip_a_voxel, "differs from the model's mask"),
        (call_it_another_segment, "differs from the model's mask"),
        (swap_two_segments, "differs from the model's mask"),
        (unreadable, "could not be read"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_single_later_frame_that_is_wrong_is_held(
    case: Case, tmp_path: Path, change: Callable[[Dataset], None], words: str
) -> None:
    objects = tampered(case, ResultKind.SEG, change, tmp_path)
    with pytest.raises(ResultCheckFailed, match=words):
        verify(objects, case.findings, case.volume, case.paths)
