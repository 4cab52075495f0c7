"""The reserve: space that is there when the disk is full."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.storage.reserve import Reserve, ReserveChange, free_bytes, reserve_size
from tests.faults.disks import Disk, small_disk

MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path, "ext4", 64) as made:
        yield made


def reserve_of(disk: Disk, size_mb: int = 64) -> Reserve:
    return Reserve(disk.folder, size_bytes=size_mb * MB, writing_stops_below_bytes=8 * MB)


def fill(disk: Disk, leave_bytes: int = 0) -> Path:
    """Somebody else's file takes all but so much."""
    path = disk.folder / "somebody-else"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk.folder) - leave_bytes - 64 * 1024)
    return path


def test_the_space_is_really_taken_and_no_more_than_a_sixteenth_of_the_disk(disk: Disk) -> None:
    before, reserve = free_bytes(disk.folder), reserve_of(disk)
    assert reserve.tend() is ReserveChange.SET_ASIDE
    size = reserve_size(disk.folder, 64 * MB)
    assert 2 * MB <= size <= 4 * MB
    assert size <= before - free_bytes(disk.folder) <= size + MB
    assert reserve.kept_bytes >= size
    assert reserve.tend() is None


def test_a_full_disk_gets_it_back_and_room_again_sets_it_aside_again(disk: Disk) -> None:
    reserve = reserve_of(disk)
    reserve.tend()
    kept = reserve.kept_bytes
    other = fill(disk)
    assert reserve.tend() is ReserveChange.GIVEN_UP
    assert free_bytes(disk.folder) >= kept
    (disk.folder / "database").write_bytes(bytes(kept // 2))
    assert [reserve.tend() for _ in range(3)] == [None] * 3, "it flutters"
    other.unlink()
    assert reserve.tend() is ReserveChange.SET_ASIDE


def test_it_is_not_taken_from_a_disk_that_has_little_room(disk: Disk) -> None:
    fill(disk, leave_bytes=9 * MB)
    reserve = reserve_of(disk)
    assert reserve.tend() is None
    assert reserve.kept_bytes == 0


def test_another_size_in_the_settings_counts_from_the_next_start(disk: Disk) -> None:
    reserve_of(disk, 1).tend()
    assert reserve_of(disk, 2).tend() is ReserveChange.SET_ASIDE
    assert reserve_of(disk, 2).kept_bytes >= 2 * MB
    assert reserve_of(disk, 0).tend() is ReserveChange.GIVEN_UP
    assert reserve_of(disk, 0).tend() is None
    assert not (disk.folder / "reserve").exists()


def test_half_a_reserve_is_made_whole(disk: Disk) -> None:
    """A crash cut its making short."""
    reserve = reserve_of(disk)
    reserve.tend()
    os.truncate(disk.folder / "reserve", MB)
    assert reserve.tend() is ReserveChange.SET_ASIDE
    assert reserve.kept_bytes >= reserve_size(disk.folder, 64 * MB)


def test_a_folder_that_is_not_made_yet_is_judged_by_its_disk(tmp_path: Path) -> None:
    assert reserve_size(tmp_path / "not" / "yet", MB) == MB
