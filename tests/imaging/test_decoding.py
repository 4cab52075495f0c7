"""Compressed pixel data: right for every syntax, refused when cut off or lying, bounded in memory."""

import copy
import re
import subprocess
import sys
import sysconfig
import textwrap
from importlib.metadata import distributions
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.domain.imaging import InstanceRef, Refusal, RefusalCode, Volume
from dicomnode.imaging import install_decoders, load, scan
from dicomnode.imaging.codecs import DECODER_DEPENDENCIES, PLUGIN_LABEL, FrameFormat, decode_frame
from dicomnode.imaging.decoding import decode_one, decode_slices
from dicomnode.imaging.headers import read_frames
from tests.imaging.writing import Slices, image, save

PACKAGES = sysconfig.get_paths()["purelib"]

TOLERANCES_HU = {
    "1.2.1.99": 0, "1.2.4.57": 0, "1.2.4.70": 0, "1.2.4.80": 0, "1.2.4.90": 0, "1.2.5": 0,
    "1.2.4.81": 1, "1.2.4.91": 5, "1.2.4.51": 36, "1.2.4.53": 36, "1.2.4.55": 36, "1.2.4.50": 64.3,
}  # fmt: skip


def rescaled(path: Path) -> np.ndarray:
    """(y, x): what a slice of this file would be in a volume."""
    _, frames = read_frames(InstanceRef("1.2", "1.2.840.10008.5.1.4.1.1.2", path))
    return decode_slices(frames)[0]


@pytest.mark.parametrize("syntax", TOLERANCES_HU)
def test_one_ct_slice_is_the_same_in_every_transfer_syntax(test_data: Path, syntax: str) -> None:
    reference = dcmread(test_data / "syntaxes" / "1.2.1.99_ct_neck.dcm")
    expected = reference.pixel_array.astype(int) * int(reference.RescaleSlope) + int(reference.RescaleIntercept)
    lossless = TOLERANCES_HU[syntax] == 0
    # The padding around the scan circle is outside the range of the lossy files.
    inside = np.ones(expected.shape, bool) if lossless else expected > -1024
    difference = np.abs(rescaled(test_data / "syntaxes" / f"{syntax}_ct_neck.dcm") - expected)[inside]
    assert difference.max() <= TOLERANCES_HU[syntax]


@pytest.mark.parametrize(
    "name",
    ["1.2.1_mr_small", "1.2.2_mr_small_bigendian", "1.2.4.80_mr_small", "1.2.4.90_mr_small", "1.2.5_mr_small_rle"],
)
def test_one_mr_slice_is_the_same_in_every_transfer_syntax(test_data: Path, name: str) -> None:
    expected = dcmread(test_data / "syntaxes" / "1.2_mr_small_implicit.dcm").pixel_array
    np.testing.assert_array_equal(rescaled(test_data / "syntaxes" / f"{name}.dcm"), expected)


def compressed(data_set: Dataset, syntax: UID) -> Dataset:
    """A slice of `Slices` in another syntax, its pixels unchanged (12-bit JPEG: nearly so)."""
    data_set = copy.deepcopy(data_set)
    stored = np.frombuffer(data_set.PixelData, np.int16).reshape(data_set.Rows, data_set.Columns)
    encoders = {
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(stored.view(np.uint16)),
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True),
        HTJ2KLossless: lambda: imagecodecs.htj2k_encode(stored.view(np.uint16), reversible=True),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(stored.view(np.uint16), lossless=True, bitspersample=16),
        JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(stored.view(np.uint16), level=100, bitspersample=12),
    }
    data_set.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        data_set.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
        data_set.compress(RLELossless, generate_instance_uid=False)
        return data_set
    if syntax == JPEGExtended12Bit:
        data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 12, 11, 0
    frame = encoders[syntax]()
    data_set.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    data_set["PixelData"].VR = "OB"
    return data_set


SYNTAXES = [RLELossless, JPEGLSLossless, JPEGLosslessSV1, JPEG2000Lossless, HTJ2KLossless, JPEGExtended12Bit]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_compressed_series_gives_the_volume_of_the_uncompressed_one(tmp_path: Path, syntax: UID) -> None:
    slices = Slices(rows=64, columns=48)
    series = save(tmp_path, [compressed(data_set, syntax) for data_set in slices.data_sets()])
    volume = load(series)
    assert isinstance(volume, Volume), volume
    expected = [slices.stored(index) - 1024 for index in range(10)]
    np.testing.assert_allclose(volume.pixels, expected, atol=2 if syntax == JPEGExtended12Bit else 0)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless], ids=lambda syntax: syntax.name)
def test_jpeg_2000_is_read_by_openjpeg_where_imagecodecs_has_no_codec_for_it(
    syntax: UID, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = Slices(rows=64, columns=48)
    data_set = compressed(slices.data_set(0), syntax)
    frame_format = FrameFormat(64, 48, 1, 16, 16, True, "MONOCHROME2")
    monkeypatch.setattr(imagecodecs.JPEG2K, "available", False)
    monkeypatch.setattr(imagecodecs.HTJ2K, "available", False)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", None)
    monkeypatch.setattr(imagecodecs, "htj2k_decode", None)
    decoded = decode_frame(frame_of(data_set), syntax, frame_format)
    np.testing.assert_array_equal(decoded.view(np.int16), slices.stored(0))


def frame_of(data_set: Dataset) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(data_set.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_frame_that_is_cut_off_is_refused_and_named(tmp_path: Path, syntax: UID, kept: float) -> None:
    data_sets = [compressed(data_set, syntax) for data_set in Slices(rows=64, columns=48).data_sets()]
    frame = frame_of(data_sets[4])
    data_sets[4].PixelData = encapsulate([frame[: int(len(frame) * kept) // 2 * 2]])
    refusal = load(save(tmp_path, data_sets))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT
    assert refusal.instances == (data_sets[4].SOPInstanceUID,)
    assert "image 5" in refusal.message


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("rows", [32, 63, 65, 640])
def test_a_frame_of_another_size_than_the_header_says_is_refused(tmp_path: Path, syntax: UID, rows: int) -> None:
    data_sets = [compressed(data_set, syntax) for data_set in Slices(rows=64, columns=48).data_sets()]
    for data_set in data_sets:
        data_set.Rows = rows
    refusal = load(save(tmp_path, data_sets))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, len(refusal.instances)) == (RefusalCode.CORRUPT, 10)


@pytest.mark.parametrize("rows", [63, 65, 640])
def test_uncompressed_pixels_that_contradict_rows_are_refused(tmp_path: Path, rows: int) -> None:
    data_sets = Slices(rows=64).data_sets()
    for data_set in data_sets:
        data_set.Rows = rows
    refusal = load(save(tmp_path, data_sets))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT
    assert "promises" in refusal.message


def test_a_precision_other_than_the_headers_is_refused(tmp_path: Path) -> None:
    data_sets = [compressed(data_set, JPEGExtended12Bit) for data_set in Slices(rows=64, columns=48).data_sets()]
    for data_set in data_sets:
        data_set.BitsStored, data_set.HighBit = 16, 15
    refusal = load(save(tmp_path, data_sets))
    assert isinstance(refusal, Refusal)
    assert "12 bits" in refusal.message


def test_lying_and_truncated_files_cost_no_memory(test_data: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        from dicomnode.domain.imaging import Refusal
        from dicomnode.imaging import load, scan
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sys.argv[1:]:
            for series in scan([Path(path)]).series:
                assert isinstance(load(series), Refusal), path
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    files = [str(path) for path in (test_data / "broken").iterdir()]
    limited = f'ulimit -v {2 << 20}; exec "$@"'  # 2 GiB of address space: a lying length must not even be asked for
    command = ["bash", "-c", limited, "bash", sys.executable, "-c", script, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100_000  # KiB


@pytest.mark.parametrize(
    "name", ["lying_65535x65535", "truncated_pixels", "derived_truncated_jpegls_ct", "j2k_multiframe_too_short"]
)
def test_broken_pixel_data_end_in_a_refusal_when_they_are_decoded(test_data: Path, name: str) -> None:
    from dicomnode.imaging.refusing import Refused

    ((instance,),) = [series.instances for series in scan([test_data / "broken" / f"{name}.dcm"]).series]
    _, frames = read_frames(instance) if name != "lying_65535x65535" else (None, ())
    if frames:
        with pytest.raises(Refused) as refused:
            decode_one(frames[0])
        assert refused.value.refusal.code == RefusalCode.CORRUPT
    else:
        assert isinstance(loaded := load(scan([instance.path]).series[0]), Refusal)
        assert loaded.code == RefusalCode.CORRUPT


def test_frames_in_fragments_without_an_offset_table_are_put_together(test_data: Path) -> None:
    path = test_data / "syntaxes" / "1.2.4.51_2frames_fragmented_no_bot.dcm"
    ((instance,),) = [series.instances for series in scan([path]).series]
    _, frames = read_frames(instance)
    uncompressed = dcmread(test_data / "objects" / "ct_enhanced_2frames.dcm").pixel_array.astype(int)
    decoded = np.array([decode_one(frame) for frame in frames], int)
    # The same two frames, compressed with losses and an offset of 1023; swapped they would differ by 83 on average.
    assert np.abs(decoded - 1023 - uncompressed).mean() < 1


def plugged_in(path: Path, **options: str) -> np.ndarray:
    install_decoders()
    return pixel_array(path, decoding_plugin=PLUGIN_LABEL, raw=False, **options)


def test_the_plug_in_is_offered_for_every_syntax_that_pydicom_knows_and_installing_twice_is_harmless() -> None:
    install_decoders()
    install_decoders()
    for syntax in set(DECODER_DEPENDENCIES) - {"1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"}:
        assert PLUGIN_LABEL in get_decoder(syntax).available_plugins


@pytest.mark.parametrize(
    "path",
    [
        "syntaxes/1.2.4.201_htj2k_lossless_rgb.dcm",
        "syntaxes/1.2.4.203_htj2k_rgb.dcm",
        "syntaxes/1.2.4.81_16bit.dcm",
        "syntaxes/1.2.4.70_sc_rgb.dcm",
        "syntaxes/1.2.5_sc_rgb16_2frames.dcm",
        "broken/jpeg_no_color_transform.dcm",
        "objects/sc_rgb_jpeg.dcm",
        "objects/us_multiframe_palette_jpegls.dcm",
        "objects/us_multiframe_ybr422_jpeg.dcm",
        "objects/xa_jpegext12.dcm",
        "objects/pt_slice_jpegll.dcm",
        "objects/cr_extremity_mono1_j2k.dcm",
    ],
)
def test_pydicom_reads_real_files_through_the_plug_in(test_data: Path, path: str) -> None:
    array = plugged_in(test_data / path)
    header = dcmread(test_data / path, stop_before_pixels=True)
    frames = int(header.get("NumberOfFrames", 1))
    expected = (frames,) * (frames > 1) + (header.Rows, header.Columns) + (3,) * (header.SamplesPerPixel == 3)
    assert array.shape == expected
    others = [name for name in get_decoder(header.file_meta.TransferSyntaxUID).available_plugins if name != PLUGIN_LABEL]
    if others and path != "objects/xa_jpegext12.dcm":  # 12-bit JPEG: nobody else here reads it
        other = pixel_array(test_data / path, decoding_plugin=others[0])
        assert np.abs(array.astype(int) - other.astype(int)).max() <= 4  # inverse DCT and chroma upsampling differ in rounding


def test_every_frame_of_a_colour_jpeg_without_a_jfif_marker_is_converted(tmp_path: Path) -> None:
    colours = np.zeros((4, 16, 16, 3), np.uint8)
    colours[...] = np.array([[200, 40, 90], [20, 180, 60], [10, 30, 240], [250, 250, 20]])[:, None, None]
    frames = [imagecodecs.jpeg8_encode(frame, level=98) for frame in colours]
    # Cut the JFIF segment out, which follows SOI: FFE0, two bytes of length, 14 more.
    bare = [frame[:2] + frame[20:] if frame[2:4] == b"\xff\xe0" else frame for frame in frames]
    data_set = image("1.2.840.10008.5.1.4.1.1.7.4", np.zeros((4, 16, 16), np.uint8), "1.2.3")
    data_set.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.50")
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation, data_set.PlanarConfiguration = 3, "YBR_FULL_422", 0
    data_set.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in bare])
    data_set["PixelData"].VR = "OB"
    data_set.save_as(tmp_path / "colours.dcm", enforce_file_format=True)
    assert np.abs(plugged_in(tmp_path / "colours.dcm").astype(int) - colours).max() <= 4


def test_lossy_htj2k_does_not_wrap_at_white(test_data: Path) -> None:
    lossless = plugged_in(test_data / "syntaxes" / "1.2.4.201_htj2k_lossless_rgb.dcm").astype(int)
    lossy = plugged_in(test_data / "syntaxes" / "1.2.4.203_htj2k_rgb.dcm").astype(int)
    assert lossy.shape == lossless.shape
    assert np.abs(lossy - lossless).max() < 128
    assert HTJ2K in DECODER_DEPENDENCIES


def test_no_decoder_of_the_default_install_is_under_the_gpl_or_kills_processes() -> None:
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text()
    locked = dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ]+)", lock))
    assert not {"pylibjpeg-libjpeg", "python-gdcm", "gdcm"} & locked.keys()  # GPL-3; aborts on hostile bytes
    assert {"imagecodecs", "pylibjpeg-openjpeg"} <= locked.keys()
    assert not {"pylibjpeg-libjpeg", "python-gdcm"} & {one.metadata["Name"] for one in distributions(path=[PACKAGES])}
    openjpeg = re.search(r"openjpeg-([0-9.]+)", imagecodecs.version())
    assert openjpeg is not None
    assert tuple(map(int, openjpeg[1].split("."))) >= (2, 5, 4)  # CVE-2025-54874 is in those before
