"""A small `bench ingest` against real receivers, and what it does where something is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.bench import IngestPlan, Report, disk, ingest, processes, shim
from dicomnode.bench.ingest_cases import RECEIVERS
from dicomnode.bench.objects import mr
from dicomnode.bench.processes import MeasurementFailed, Running, free_port
from dicomnode.domain.errors import UsageError


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Twelve MR images on one association, in one round."""
    plan = IngestPlan(
        tmp_path_factory.mktemp("bench"),
        rounds=1,
        cases=("1xMR",),
        subjects=("ours", "ours-unsynced", "storescp"),
        images=12,
        largest_bytes=1 << 20,
    )
    return ingest(plan, lambda _what, _share: None)


def test_a_small_bench_measures_us_and_storescp(small: Report) -> None:
    assert {"1xMR/storescp", "1xMR/ours-unsynced"} == set(small.ratios)
    assert all(ratio > 0 for ratio in small.ratios.values())
    assert small.left_out == ()
    assert small.versions["dcmtk"]


def test_the_law_of_one_association_is_among_its_goals(small: Report) -> None:
    law = next(goal for goal in small.goals if goal.name == "1xMR: T / (T0 + S)")
    assert law.measured is not None
    assert law.gate


def test_stubbed_syncs_are_counted_so_that_a_shim_out_of_the_way_is_noticed(small: Report) -> None:
    syncs = next(row for row in small.rows if row.unit == "syncs/image")
    assert syncs.subject == "ours-unsynced"
    assert syncs.median >= 1


def test_where_the_time_goes_is_told_for_one_association(small: Report) -> None:
    assert set(small.profiles) == {"1xMR"}
    assert "ours-sampled" not in {row.subject for row in small.rows}


def test_nothing_stays_behind(small: Report, tmp_path: Path) -> None:
    plan = IngestPlan(tmp_path, rounds=1, cases=("1xMR",), subjects=("floor",), images=2, largest_bytes=1 << 20)
    ingest(plan, lambda _what, _share: None)
    assert list(tmp_path.iterdir()) == []
    assert small.rows


def test_an_image_that_is_acknowledged_and_not_kept_is_noticed(tmp_path: Path) -> None:
    receiver = RECEIVERS["ours"]
    receiver.command(tmp_path, free_port())
    with pytest.raises(MeasurementFailed, match="acknowledged and is not there"):
        receiver.check(tmp_path, mr(), 1)
    (tmp_path / "received").mkdir()
    with pytest.raises(MeasurementFailed, match="keeps 0"):
        RECEIVERS["storescp"].check(tmp_path, mr(), 1)


def test_a_receiver_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(MeasurementFailed, match="no such option"):
        Running(command, free_port(), tmp_path, {})


def test_a_peer_that_is_not_installed_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomnode.bench.receivers.found", lambda _program: None)
    plan = IngestPlan(tmp_path, rounds=1, cases=("1xMR",), subjects=("storescp", "orthanc"), largest_bytes=1 << 20)
    report = ingest(plan, lambda _what, _share: None)
    assert {one.subject: one.why.rpartition(" ")[2] for one in report.left_out} == {"storescp": "dcmtk", "orthanc": "orthanc"}


def test_without_a_compiler_what_needs_the_shim_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim.shutil, "which", lambda _program: None)  # type: ignore[attr-defined]
    plan = IngestPlan(tmp_path, rounds=1, cases=("1xMR",), subjects=("ours-unsynced",), largest_bytes=1 << 20)
    report = ingest(plan, lambda _what, _share: None)
    assert [one.why for one in report.left_out] == [shim.NO_COMPILER]


def test_an_unknown_case_is_refused_with_the_names_of_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1xCT"):
        ingest(IngestPlan(tmp_path, cases=("2xCT",)), lambda _what, _share: None)


def test_what_a_run_leaves_takes_no_space_and_deletes_no_file(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "run" / "data"
        folder.mkdir(parents=True)
        (folder / "image").write_bytes(bytes(100_000))
        (folder / "image").chmod(0o400)
        disk.put_away(tmp_path / "run", tmp_path / "done")
        assert not (tmp_path / "run").exists()
        assert (tmp_path / "done" / str(number) / "data" / "image").stat().st_blocks == 0


def test_memory_is_no_disk() -> None:
    memory = Path("/dev/shm")
    if not disk.file_system(memory).startswith("tmpfs"):
        pytest.skip("/dev/shm is no tmpfs here")
    with pytest.raises(UsageError, match="no disk"):
        disk.check_disk(memory, 0)


def slow_sync(environment: dict[str, str], folder: Path) -> float:
    """Seconds of five fdatasyncs in a process under the shim."""
    script = (
        "import os,time;f=os.open('x',os.O_WRONLY|os.O_CREAT);t=time.perf_counter()\n"
        "for _ in range(5): os.write(f,b'x'); os.fdatasync(f)\n"
        "print(time.perf_counter()-t)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def test_the_shim_makes_each_sync_cost_what_it_is_told_and_counts_it(tmp_path: Path) -> None:
    library = shim.compiled(tmp_path)
    assert library is not None
    counted = shim.Counted(library, tmp_path / "count", least_ms=30)
    assert slow_sync(dict(counted.environment), tmp_path) >= 0.15
    assert counted.calls == 5
    stubbed = shim.Counted(library, tmp_path / "count", stub=True)
    assert slow_sync(dict(stubbed.environment), tmp_path) < 0.15
    assert stubbed.calls == 5


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    words = ["bench", "ingest", "--dir", str(tmp_path), "--rounds", "1", "--case", "1xMR", "--subject", "floor", "--json"]
    done = subprocess.run([sys.executable, "-m", "dicomnode.cli", *words], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["schema"] == "dicomnode.bench.ingest/1"
    assert {"machine", "versions", "rows", "ratios"} <= set(document)
    assert document["command"] == "dicomnode bench ingest --rounds 1 --case 1xMR --subject floor"


def test_the_gate_decides_the_exit_code_only_when_asked(tmp_path: Path) -> None:
    words = ["bench", "ingest", "--dir", str(tmp_path), "--rounds", "1", "--case", "1xMR", "--subject", "floor", "--gate"]
    done = subprocess.run([sys.executable, "-m", "dicomnode.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "gate" in done.stderr


def test_ports_are_found_in_the_kernels_table() -> None:
    import os
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listens(os.getpid(), port)
    assert not processes.listens(os.getpid(), port)
