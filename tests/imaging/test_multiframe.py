"""Enhanced multi-frame images, and how encapsulated frames are found: the same table, other places in the file."""

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended

from dicomnode.domain.imaging import Refusal, RefusalCode, Volume
from dicomnode.imaging import load
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.encapsulation import frames_of
from tests.imaging.writing import ENHANCED_CT, ROOT, image, save


def item(**elements: object) -> list[Dataset]:
    data_set = Dataset()
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    return [data_set]


def enhanced_ct(heights: list[float]) -> Dataset:
    """One Enhanced CT object; frame i lies at heights[i] and holds the value i."""
    stored = np.arange(len(heights), dtype=np.int16)[:, None, None] * np.ones((1, 8, 10), np.int16)
    data_set = image(ENHANCED_CT, stored, f"{ROOT}.6")
    data_set.Modality, data_set.FrameOfReferenceUID, data_set.InstanceNumber = "CT", f"{ROOT}.4", 1
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.5, 0.75], SliceThickness=3)
    shared.PixelValueTransformationSequence = item(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")
    data_set.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for height in heights:
        frame = Dataset()
        frame.PlanePositionSequence = item(ImagePositionPatient=[-5, -6, height])
        frame.FrameContentSequence = item(FrameAcquisitionNumber=1)
        frames.append(frame)
    data_set.PerFrameFunctionalGroupsSequence = frames
    return data_set


def test_frames_are_ordered_by_position_and_named_by_number(tmp_path: Path) -> None:
    volume = load(save(tmp_path, [enhanced_ct([6, 0, 3, 9])]))
    assert isinstance(volume, Volume), volume
    assert [frame.frame_number for frame in volume.frames] == [2, 3, 1, 4]
    np.testing.assert_array_equal(volume.pixels[:, 0, 0], [-998, -996, -1000, -994])
    assert volume.spacing_mm == pytest.approx((3, 0.5, 0.75))
    assert volume.affine[:3, 3] == pytest.approx([-5, -6, 0])
    assert volume.unit == "[hnsf'U]"
    assert volume.headers.slice_thickness_mm == 3


def test_the_same_table_holds_for_frames(tmp_path: Path) -> None:
    refusal = load(save(tmp_path, [enhanced_ct([0, 3, 6, 12, 15])]))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.GAP
    assert "images 1 frame 3 and 1 frame 4" in refusal.message
    twice = enhanced_ct([0, 3, 6, 0, 3, 6])
    for index, group in enumerate(twice.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].TemporalPositionIndex = 1 + index // 3
    refusal = load(save(tmp_path, [twice]))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.TEMPORAL
    assert "TemporalPositionIdentifier" in refusal.message


def test_several_multi_frame_objects_make_one_stack(tmp_path: Path) -> None:
    second = enhanced_ct([9, 12])
    second.SOPInstanceUID = f"{ROOT}.7"
    volume = load(save(tmp_path, [second, enhanced_ct([0, 3, 6])]))
    assert isinstance(volume, Volume)
    assert [frame.sop_instance_uid[-1] for frame in volume.frames] == ["6", "6", "6", "7", "7"]


def test_a_frame_count_that_the_functional_groups_contradict_is_refused(tmp_path: Path) -> None:
    data_set = enhanced_ct([0, 3, 6])
    del data_set.PerFrameFunctionalGroupsSequence[2]
    refusal = load(save(tmp_path, [data_set]))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT


FRAMES = [b"\xff\xd8" + bytes([index]) * 40 + b"\xff\xd9" for index in range(1, 4)]


DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)  # pydicom writes it when a data set is saved


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("fragments", [1, 3])
def test_frames_are_found_with_and_without_an_offset_table(has_table: bool, fragments: int) -> None:
    value = encapsulate(FRAMES, fragments_per_frame=fragments, has_bot=has_table) + DELIMITER
    assert frames_of(value, 3) == FRAMES


def test_frames_are_found_by_the_extended_offset_table_and_lose_their_padding() -> None:
    odd = [frame + b"x" for frame in FRAMES]
    value, offsets, _ = encapsulate_extended(odd)
    lengths = struct.pack("<3Q", *map(len, odd))  # PS3.3 C.7.6.3.1.8: without padding; pydicom counts it
    assert frames_of(value + DELIMITER, 3, (offsets, lengths)) == odd


def test_a_lying_offset_table_is_not_believed() -> None:
    value = bytearray(encapsulate(FRAMES, fragments_per_frame=3) + DELIMITER)
    value[12:16] = struct.pack("<I", 7)
    assert frames_of(bytes(value), 3) == FRAMES


@pytest.mark.parametrize("kept", [0, 4, 20, 60, 100, -8, -4])
def test_an_encapsulation_that_ends_early_is_corrupt(kept: int) -> None:
    with pytest.raises(CorruptPixels):
        frames_of((encapsulate(FRAMES) + DELIMITER)[:kept], 3)


@pytest.mark.parametrize("number_of_frames", [2, 4, 1000])
def test_a_number_of_frames_that_the_fragments_contradict_is_corrupt(number_of_frames: int) -> None:
    with pytest.raises(CorruptPixels):
        frames_of(encapsulate(FRAMES) + DELIMITER, number_of_frames)
