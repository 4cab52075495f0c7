"""A small `bench decode` against pydicom's own decoders."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicomnode.bench import Report, decode_files, decode_subject
from dicomnode.bench.decode import DecodePlan, _Bench, cpu_s, decode
from dicomnode.bench.decode_cases import CASES
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.domain.errors import UsageError
from dicomnode.imaging import scan
from dicomnode.imaging.codecs import decode_frame
from dicomnode.imaging.headers import read_frames
from dicomnode.imaging.stored import encoded_frames

SMALL = {"images": 8, "size": 64, "rounds": 1}


def silent(_what: str, _share: float) -> None:
    pass


@pytest.fixture(scope="module")
def small() -> Report:
    """Two syntaxes, one round."""
    return decode(DecodePlan(cases=("RLE", "HTJ2K"), **SMALL), silent)


def test_a_small_bench_measures_us_and_pydicom(small: Report) -> None:
    assert {"RLE/pydicom", "RLE/ours-1-thread", "HTJ2K/pydicom", "HTJ2K/pylibjpeg"} <= set(small.ratios)
    assert all(ratio > 0 for ratio in small.ratios.values())
    assert small.left_out == ()
    assert small.versions["imagecodecs"]


def test_the_floor_under_us_is_measured_beside_us(small: Report) -> None:
    (ceiling,) = [row for row in small.rows if row.unit == "HTJ2K/pylibjpeg at most"]
    assert ceiling.subject == "bare-codec"
    ratio = small.ratios["HTJ2K/pylibjpeg"] / small.ratios["HTJ2K/bare-codec"]
    assert ceiling.median == pytest.approx(ratio, rel=0.02)


def test_processor_time_is_told_beside_the_clock_with_that_of_the_decoding_process(small: Report) -> None:
    units = {(row.case, row.subject, row.unit) for row in small.rows}
    assert ("RLE", "ours", "ms CPU/image") in units
    assert set(small.notes["cpu_ratios"]) <= set(small.ratios)  # type: ignore[arg-type]


def test_the_goals_of_what_was_measured_stand_beside_it(small: Report) -> None:
    assert [(goal.name, goal.bound) for goal in small.goals] == [("RLE/pydicom", 3.0), ("HTJ2K/pylibjpeg", 3.5)]
    assert all(goal.measured is not None for goal in small.goals)


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_every_syntax_holds_the_pixels_of_the_uncompressed_series(tmp_path: Path, case: object) -> None:
    plain = decode_files.uncompressed(tmp_path / "plain", 8, 64)
    paths = decode_files.in_syntax(plain, case.transfer_syntax_uid, tmp_path / "case")  # type: ignore[attr-defined]
    for source, path in zip(plain, paths, strict=True):
        frames = [read_frames(scan([one]).series[0].instances[0])[1][0] for one in (source, path)]
        expected = np.frombuffer(encoded_frames(frames[0].instance)[0], "<u2").reshape(64, 64)
        layout = frames[1].layout
        decoded = decode_frame(encoded_frames(frames[1].instance)[0], layout.transfer_syntax_uid, layout.frame_format)
        difference = np.abs(decoded.astype(int) - expected)
        assert difference.max() <= (80 if case.lossy else 0)  # type: ignore[attr-defined]
        assert difference.mean() < 8


def test_who_decodes_other_pixels_is_no_peer_to_compare_with(tmp_path: Path) -> None:
    bench = _Bench(DecodePlan(), tmp_path, silent)
    reference = {"sample": [1, 2], "sum": 3}
    with pytest.raises(MeasurementFailed, match="other pixels"):
        bench._compare(CASES[1], "pydicom", {"sample": [1, 3], "sum": 4}, reference)


def test_without_a_decoder_a_peer_is_left_out_and_the_licence_named(tmp_path: Path) -> None:
    report = decode(DecodePlan(cases=("JPEG-12-bit",), subjects=("pylibjpeg",), **SMALL), silent)
    if report.versions["pylibjpeg-libjpeg"]:
        pytest.skip("pylibjpeg-libjpeg is on the path")
    (left_out,) = report.left_out
    assert "GPL-3" in left_out.why


def test_an_unknown_case_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UsageError, match="JPEG-LS"):
        decode(DecodePlan(cases=("PNG",)), silent)


def test_processor_time_counts_children() -> None:
    burn = (
        "import time,subprocess,sys;subprocess.Popen([sys.executable,'-c','while 1: pass']);print(1,flush=True);time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        before = cpu_s(process.pid)
        while cpu_s(process.pid) < before + 0.2:  # the parent sleeps
            pass
    finally:
        import os
        import signal

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_command_prints_one_document() -> None:
    words = ["bench", "decode", "--images", "8", "--rounds", "1", "--case", "RLE", "--subject", "ours", "--json"]
    done = subprocess.run([sys.executable, "-m", "dicomnode.cli", *words], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["schema"] == "dicomnode.bench.decode/1"
    assert {"machine", "versions", "rows", "ratios"} <= set(document)
    assert document["command"] == "dicomnode bench decode --rounds 1 --images 8 --case RLE --subject ours"


def test_the_naive_way_gives_the_volume_that_we_give(tmp_path: Path) -> None:
    decode_files.uncompressed(tmp_path / "plain", 8, 64)
    ours, naive = (decode_subject.way_of(name, tmp_path / "plain")() for name in ("ours", "pydicom"))
    np.testing.assert_array_equal(ours, naive)
