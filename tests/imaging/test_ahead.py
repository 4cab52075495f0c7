"""Compressed slices are decoded while headers are read: the volume is the one that the ordinary way makes, whatever comes."""

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.imaging import InstanceRef, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.imaging import apart, load, loading
from dicomnode.imaging.ahead import Ahead
from dicomnode.imaging.headers import read_frames
from tests.imaging.failing import as_jpeg_ls, failing_codec
from tests.imaging.test_apart import decoder_of
from tests.imaging.writing import ROOT, Slices, renew, save

NUMBER = 12


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each volume came from the frames that were decoded ahead."""
    seen: list[bool] = []
    plainly = Ahead.volume

    def noted(self: Ahead, frames: Sequence[object]) -> object:
        made = plainly(self, frames)  # type: ignore[arg-type]
        seen.append(made is not None)
        return made

    monkeypatch.setattr(Ahead, "volume", noted)
    return seen


def slices(number: int = NUMBER) -> list[Dataset]:
    return Slices(number, rows=32, columns=48).data_sets()


def series_of(folder: Path, data_sets: list[Dataset], shuffle: Callable[[list[Path]], None] | None = None) -> SeriesRef:
    return save(folder, [as_jpeg_ls(one) for one in data_sets], shuffle)


def expected(number: int = NUMBER) -> np.ndarray:
    return np.array([Slices(number, rows=32, columns=48).stored(index) for index in range(number)], int) - 1024


def shuffled(paths: list[Path]) -> None:
    np.random.default_rng(3).shuffle(paths)


@pytest.mark.parametrize("order", [None, list.reverse, shuffled], ids=["upward", "downward", "shuffled"])
def test_the_order_of_files_does_not_matter(
    tmp_path: Path, used: list[bool], order: Callable[[list[Path]], None] | None
) -> None:
    volume = load(series_of(tmp_path, slices(), order))
    assert isinstance(volume, Volume), volume
    np.testing.assert_array_equal(volume.pixels, expected())
    assert volume.pixels.dtype == np.int16
    assert volume.pixels.flags.c_contiguous
    assert not volume.pixels.flags.writeable
    assert used == [True]


def test_slices_are_decoded_before_the_last_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = series_of(tmp_path, slices())
    advances: list[apart.Advance] = []
    done_at_the_last: list[int] = []
    begin, plainly = apart.Advance.__init__, read_frames

    def noted(self: apart.Advance, shape: tuple[int, int, int], workers: int) -> None:
        begin(self, shape, workers)
        advances.append(self)

    def read(ref: InstanceRef) -> object:
        if ref is series.instances[-1]:
            deadline = time.monotonic() + 60
            while not advances[0]._memory.ended() and time.monotonic() < deadline:
                time.sleep(0.01)
            done_at_the_last.append(advances[0]._memory.ended())
        return plainly(ref)

    monkeypatch.setattr(apart.Advance, "__init__", noted)
    monkeypatch.setattr(loading, "read_frames", read)
    assert isinstance(load(series), Volume)
    assert 0 < done_at_the_last[0] < NUMBER


def test_values_that_do_not_fit_are_made_again_as_float32(tmp_path: Path, used: list[bool]) -> None:
    data_sets = slices()
    data_sets[7].RescaleSlope = 100
    volume = load(series_of(tmp_path, data_sets))
    assert isinstance(volume, Volume), volume
    assert volume.pixels.dtype == np.float32
    assert volume.pixels.max() > np.iinfo(np.int16).max
    assert used == [False]


def with_half_values(data_sets: list[Dataset]) -> None:
    data_sets[5].RescaleSlope = 0.5


def of_a_localizer(data_sets: list[Dataset]) -> None:
    localizer = renew(Slices(1, rows=32, columns=48, orientation=(0, 1, 0, 0, 0, -1), seed=9).data_set(0), 98)
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    data_sets.insert(0, localizer)


def that_comes_twice(data_sets: list[Dataset]) -> None:
    data_sets.append(copy.deepcopy(data_sets[3]))


@pytest.mark.parametrize("change", [with_half_values, of_a_localizer, that_comes_twice])
def test_what_is_no_plain_stack_goes_the_ordinary_way_and_comes_out_right(
    tmp_path: Path, change: Callable[[list[Dataset]], None]
) -> None:
    data_sets = slices()
    change(data_sets)
    volume = load(series_of(tmp_path, data_sets))
    assert isinstance(volume, Volume), volume
    wanted = expected().astype(np.float32)
    if change is with_half_values:
        wanted[5] = (wanted[5] + 1024) / 2 - 1024
    np.testing.assert_array_equal(volume.pixels, wanted)


def test_a_series_that_is_refused_leaves_the_decoding_process_free_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    good = series_of(tmp_path / "good", slices())
    assert isinstance(load(good), Volume)
    before = decoder_of(os.getpid())
    data_sets = slices()
    del data_sets[6]
    refusal = load(series_of(tmp_path / "bad", data_sets))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.GAP
    volume = load(good)
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.pixels, expected())
    assert decoder_of(os.getpid()) == before


def test_a_header_that_cannot_be_read_ends_what_was_begun(tmp_path: Path) -> None:
    series = series_of(tmp_path, slices())
    path = series.instances[-1].path
    path.write_bytes(path.read_bytes()[:200])
    refusal = load(series)
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT
    assert refusal.instances == (series.instances[-1].sop_instance_uid,)
    path.unlink()
    assert isinstance(load(SeriesRef(f"{ROOT}.1", f"{ROOT}.2", series.instances[:-1])), Volume)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    series = series_of(tmp_path, slices(), list.reverse)
    path = next(one for one in series.instances if one.sop_instance_uid.endswith(".9")).path
    content = path.read_bytes()
    start = content.index(b"\xff\xda")  # SOS: from here on nothing is what it was
    path.write_bytes(content[: start + 40] + bytes(len(content) - start - 42 - 8) + b"\xff\xd9" + content[-8:])
    refusal = load(series)
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT
    assert "image 9)" in refusal.message


@pytest.fixture
def failing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LD_PRELOAD", str(failing_codec(tmp_path_factory.mktemp("codec"))))
    apart.close()
    yield
    apart.close()


@pytest.mark.usefixtures("failing")
def test_a_codec_that_hangs_in_a_series_of_bad_geometry_costs_its_process_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "SILENCE_S", 3.0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    data_sets = slices()
    del data_sets[6]
    series = save(tmp_path / "bad", [as_jpeg_ls(one, "hang" if index == 1 else "") for index, one in enumerate(data_sets)])
    refusal = load(series)
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.GAP
    assert isinstance(load(series_of(tmp_path / "good", slices())), Volume)
