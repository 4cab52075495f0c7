"""Compressed pixels are decoded in a process of their own: what its crash, hang, hunger or death costs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomnode.domain.errors import ResourceExhausted
from dicomnode.domain.imaging import Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.imaging import apart, load
from tests.imaging.failing import as_jpeg_ls, failing_codec
from tests.imaging.writing import COMPUTED_RADIOGRAPHY, ROOT, Slices, image, save


@pytest.fixture
def failing(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next decoding processes have the failing codec."""
    monkeypatch.setenv("LD_PRELOAD", str(failing_codec(tmp_path_factory.mktemp("codec"))))
    apart.close()
    yield
    apart.close()


def series_in(folder: Path, does: dict[int, str] | None = None) -> SeriesRef:
    """Ten slices in JPEG-LS; `does`: what the codec does at which."""
    folder.mkdir()
    slices = Slices(rows=64, columns=48).data_sets()
    return save(folder, [as_jpeg_ls(one, (does or {}).get(index, "")) for index, one in enumerate(slices)])


def refusal_of(series: SeriesRef) -> Refusal:
    loaded = load(series)
    assert isinstance(loaded, Refusal), loaded
    assert loaded.code == RefusalCode.CORRUPT
    return loaded


def volume_of(series: SeriesRef) -> Volume:
    loaded = load(series)
    assert isinstance(loaded, Volume), loaded
    np.testing.assert_array_equal(loaded.pixels, [Slices(rows=64, columns=48).stored(index) - 1024 for index in range(10)])
    return loaded


def decoder_of(pid: int) -> int:
    """The decoding process of that process."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for path in children for child in path.read_text().split()]
    (decoder,) = [child for child in found if b"dicomnode.imaging.decoder" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return decoder


@pytest.mark.usefixtures("failing")
def test_a_codec_that_crashes_costs_the_series_and_names_the_image_at_fault(tmp_path: Path) -> None:
    refusal = refusal_of(series_in(tmp_path / "bad", {6: "crash"}))
    assert "image 7)" in refusal.message
    assert "its decoder crashed (SIGSEGV)" in refusal.message
    assert len(refusal.instances) == 1
    volume_of(series_in(tmp_path / "good"))  # this process is well, and the next series finds a new decoding process


@pytest.mark.usefixtures("failing")
def test_a_codec_that_hangs_is_ended_and_the_image_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "SILENCE_S", 4.0)
    refusal = refusal_of(series_in(tmp_path / "bad", {2: "hang"}))
    assert "image 3)" in refusal.message
    assert "was not done after 4 s" in refusal.message
    volume_of(series_in(tmp_path / "good"))


@pytest.mark.usefixtures("failing")
def test_a_codec_that_asks_for_gigabytes_gets_none(tmp_path: Path) -> None:
    refusal = refusal_of(series_in(tmp_path / "bad", {4: "gorge"}))
    assert "image 5)" in refusal.message
    assert "crashed" not in refusal.message  # the codec was told that there is no more, and said so


@pytest.mark.usefixtures("failing")
def test_a_radiograph_that_crashes_its_codec_is_refused(tmp_path: Path) -> None:
    data_set = image(COMPUTED_RADIOGRAPHY, np.zeros((16, 16), np.uint16), f"{ROOT}.8")
    data_set.Modality = "CR"
    refusal = refusal_of(save(tmp_path, [as_jpeg_ls(data_set, "crash")]))
    assert "crashed (SIGSEGV)" in refusal.message


def test_a_decoding_process_that_somebody_else_kills_is_no_fault_of_the_images(tmp_path: Path) -> None:
    series = series_in(tmp_path / "series")
    volume_of(series)
    decoder = decoder_of(os.getpid())
    os.kill(decoder, signal.SIGKILL)
    with pytest.raises(ResourceExhausted, match="SIGKILL"):
        load(series)
    volume_of(series)
    assert decoder_of(os.getpid()) != decoder


def test_one_decoding_process_serves_one_series_after_the_other(tmp_path: Path) -> None:
    series = series_in(tmp_path / "series")
    volume = volume_of(series)
    decoder = decoder_of(os.getpid())
    volume_of(series)
    assert decoder_of(os.getpid()) == decoder
    assert not volume.pixels.flags.writeable


def test_uncompressed_pixels_need_no_decoding_process(tmp_path: Path) -> None:
    apart.close()
    assert isinstance(load(save(tmp_path, Slices().data_sets())), Volume)
    with pytest.raises(ValueError, match="unpack"):
        decoder_of(os.getpid())


HANGING = """
import sys
from pathlib import Path
from dicomnode.imaging import load, scan
load(scan([Path(sys.argv[1])]).series[0])
"""


@pytest.mark.usefixtures("failing")
def test_a_hanging_decoding_process_does_not_outlive_who_waits_for_it(tmp_path: Path) -> None:
    series_in(tmp_path / "bad", {0: "hang"})
    waiting = subprocess.Popen([sys.executable, "-c", HANGING, str(tmp_path / "bad")])
    deadline, decoder = time.monotonic() + 60, None
    while decoder is None and time.monotonic() < deadline:
        time.sleep(0.05)
        try:
            decoder = decoder_of(waiting.pid)
        except (ValueError, OSError):
            continue
    assert decoder is not None
    waiting.kill()
    waiting.wait()
    while Path(f"/proc/{decoder}").exists() and "Z" not in Path(f"/proc/{decoder}/stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)
