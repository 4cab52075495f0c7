"""The worker: every ending of a job, with real bytes, rows, model and result objects."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dicomnode import routing
from dicomnode.domain.clock import utc_now
from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.phantom import Phantom, ThoraxSpec, small_thorax, thorax, write_study
from dicomnode.receiving import Receiver
from dicomnode.registry import ClaimedJob, Registry
from dicomnode.roles import wiring
from dicomnode.roles.analysis import Analysis
from dicomnode.roles.leftovers import sweep_spool
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.sweep import pipeline_facts
from dicomnode.roles.work import Worker
from dicomnode.settings import Settings, load_settings
from dicomnode.storage import KnownFile, Store, fsck
from tests.peers.dcmtk import dcmsend
from tests.peers.node import chest_route, destination, settings_text

PIPELINES = Path(__file__).parents[1] / "pipelines"
A_REFUSAL = Refusal(RefusalCode.PROCESSING_FAILED, "it failed", "look at the logs")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Bench:
    """One node's parts without its processes."""

    settings: Settings
    registry: Registry
    store: Store
    worker: Worker
    lifeline: Lifeline

    def receive(self, phantom: Phantom, folder: Path, change: Callable[[bytes], bytes] = bytes) -> None:
        """The study by C-STORE into the store, and its job. change: what to make of each file's bytes before they go."""
        write_study(phantom, folder)
        for path in folder.rglob("*.dcm"):
            path.write_bytes(change(path.read_bytes()))
        receiver = Receiver(self.store, self.registry, ae_title="DICOMNODE", port=0)
        receiver.start()
        assert dcmsend(receiver.port, folder).ok
        receiver.stop()
        later = utc_now() + timedelta(minutes=5)
        report = routing.sweep(self.registry, wiring.routes(self.settings), later, pipelines=pipeline_facts(self.settings))
        assert len(report.jobs_created) == 1

    def claim(self) -> ClaimedJob:
        job = self.registry.claim_job(wiring.worker_name(self.settings), 60)
        assert job is not None
        return job

    def ending(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """The only job, its results and its deliveries, as `explain` tells them."""
        explained: Any = self.registry.explain("S1")
        parts = [[one for series in explained["series"] for one in series[name]] for name in ("jobs", "results", "deliveries")]
        return parts[0][0], parts[1], parts[2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """`bench(pipelines=FOLDER, accept_demonstration=False)`."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    made: list[Bench] = []

    def make(*, pipelines: Path = PIPELINES, accept_demonstration: bool = True) -> Bench:
        config = tmp_path / "dicomnode.toml"
        results = tmp_path / "results"
        results.mkdir()
        folder = destination(
            "folder", kind="folder", path=str(results), peer=None, proof="status", accept_demonstration=accept_demonstration
        )
        tables = {"node": {"data_dir": str(tmp_path / "data")}, "pipelines": {"folders": [str(pipelines)]}}
        route = chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"})
        config.write_text(settings_text(tables, {"destinations": [folder], "routes": [route]}))
        settings = load_settings(config)
        store, registry = wiring.open_store(settings), wiring.open_registry(settings)
        store.prepare()
        registry.prepare()
        lifeline = Lifeline()
        one = Bench(settings, registry, store, Worker(settings, registry, store, lifeline), lifeline)
        made.append(one)
        return one

    yield make
    for one in made:
        one.registry.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_done_job_has_results_on_disk_and_deliveries_waiting(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    one.worker.attempt(one.claim())
    job, results, deliveries = one.ending()
    assert job["state"] == "done"
    assert {"decode", "preprocess", "forward", "postprocess", "results"} <= job["timings_s"].keys()
    assert {"Left lung", "Right lung"} <= {segment["label"] for segment in job["findings"]["segments"]}
    assert {result["kind"] for result in results} == {"SEG", "SR", "SC"}
    assert {delivery["state"] for delivery in deliveries} == {"waiting"}
    assert len(deliveries) == len(results)
    known = (KnownFile(path, size, digest) for path, size, digest in one.registry.known_files())
    assert fsck(one.store, known, verify_digests=True).ok
    assert sweep_spool(one.store, one.registry, older_than_s=-1) == 0


def test_a_demonstration_is_withheld_from_who_does_not_accept_it(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench(accept_demonstration=False)
    one.receive(small_thorax(5), tmp_path / "study")
    one.worker.attempt(one.claim())
    job, results, deliveries = one.ending()
    assert job["state"] == "done"
    assert results
    assert deliveries == []
    assert job["notes"] == ["withheld: destination folder does not accept demonstration models"]


def test_another_region_is_refused_in_silence(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    head = thorax(ThoraxSpec(seed=5, region="head", slices=24, size=128, slice_spacing_mm=6.0, pixel_spacing_mm=2.0))
    one.receive(head, tmp_path / "study")
    one.worker.attempt(one.claim())
    job, results, deliveries = one.ending()
    assert (job["state"], job["reason_code"]) == ("refused", "not_this_region")
    assert (results, deliveries) == ([], [])


def test_a_refused_volume_says_not_run_in_the_pacs(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    job = one.claim()
    assert job.series is not None
    one.store.absolute(job.series.instances[12].path).write_bytes(b"\0" * 200)  # a slice that cannot be read any more
    one.worker.attempt(job)
    told, results, deliveries = one.ending()
    assert (told["state"], told["reason_code"]) == ("refused", "corrupt")
    assert {result["kind"] for result in results} == {"SR", "SC"}
    assert len(deliveries) == len(results)


def test_a_pipeline_that_cannot_be_loaded_fails_the_job_and_says_not_run(bench: Callable[..., Bench], tmp_path: Path) -> None:
    shutil.copytree(PIPELINES / "tiny", tmp_path / "pipelines" / "tiny")
    one = bench(pipelines=tmp_path / "pipelines")
    one.receive(small_thorax(5), tmp_path / "study")
    shutil.rmtree(tmp_path / "pipelines" / "tiny" / "models")
    one.worker.attempt(one.claim())
    job, results, deliveries = one.ending()
    assert (job["state"], job["reason_code"]) == ("failed", "pipeline_failed")
    assert {result["kind"] for result in results} == {"SR", "SC"}
    assert len(deliveries) == len(results)


def test_an_unforeseen_error_is_tried_again_and_ends_after_the_last_attempt(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    monkeypatch.setattr("dicomnode.roles.work.analyse", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("dicomnode.roles.work.FIRST_RETRY_S", 0.0)
    for attempt in (1, 2):
        one.worker.attempt(one.claim())
        assert (one.ending()[0]["state"], one.ending()[0]["attempt"]) == ("queued", attempt)
    one.worker.attempt(one.claim())
    job, results, _ = one.ending()
    assert (job["state"], job["reason_code"]) == ("failed", "internal_error")
    assert "ZeroDivisionError" in job["reason"]
    assert {result["kind"] for result in results} == {"SR", "SC"}


def test_what_a_lost_lease_computed_is_dropped(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    lost = one.claim()
    assert one.registry.requeue_lost(utc_now() + timedelta(hours=1)) == 1
    one.worker.attempt(lost)
    job, results, _ = one.ending()
    assert job["state"] == "queued"
    assert results == []


# A job that only sleeps, in a process of its own: what happens to it ends the process.
SLEEPER = """
import sys, time, json, ctypes
from datetime import timedelta
from dicomnode.registry import Registry
from dicomnode.roles.leases import HeldLease
from dicomnode.roles.lifeline import Lifeline
url, limits = sys.argv[1], json.loads(sys.argv[2])
registry = Registry(url)
lifeline = Lifeline()
job = registry.claim_job("sleeper", 60)
print("claimed", flush=True)
with HeldLease(registry, job, lifeline, **limits):
    sleep(60)
"""


@pytest.mark.parametrize(("limits", "told", "code", "sleep"), [
    ({"job_timeout_s": 0.5, "drain_s": 60}, False, -signal.SIGKILL, "time.sleep"),
    # PyDLL keeps the interpreter's lock: no thread can see that it hangs, the kernel's timer can.
    ({"job_timeout_s": 0.5, "drain_s": 60}, False, -signal.SIGALRM, "ctypes.PyDLL(None).sleep"),
    ({"job_timeout_s": 60, "drain_s": 0.5}, True, 0, "time.sleep"),
], ids=["hanging", "hanging in C", "draining"])  # fmt: skip
def test_a_hanging_job_ends_its_worker_and_a_draining_one_gives_it_back(
    bench: Callable[..., Bench], tmp_path: Path, limits: dict[str, float], told: bool, code: int, sleep: str
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    program = SLEEPER.replace(" sleep(60)", f" {sleep}(60)")
    command = [sys.executable, "-c", program, one.settings.database_url, json.dumps(limits)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"claimed\n"
    if told:
        process.terminate()
    assert process.wait(30) == code
    if told:
        assert one.registry.node_restarted() == 1
        assert one.claim().attempt == 1  # given back: an orderly stop costs a job nothing
    else:
        assert one.registry.worker_died("sleeper") == 1
        assert one.ending()[0]["crashes"] == 1


def test_a_retry_leaves_the_not_run_objects_that_still_wait_on_disk(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PIPELINES / "tiny", tmp_path / "pipelines" / "tiny")
    one = bench(pipelines=tmp_path / "pipelines")
    one.receive(small_thorax(5), tmp_path / "study")
    shutil.rmtree(tmp_path / "pipelines" / "tiny" / "models")
    one.worker.attempt(one.claim())
    waiting = [one.store.absolute(path) for path, _, _ in one.registry.known_files() if path.parts[0] == "spool"]
    assert len(waiting) == 2
    one.registry.retry("J1")
    again = one.claim()
    one.worker._saved(again, one.worker._route(again), one.worker._located(again), Analysis(None, A_REFUSAL))
    assert all(path.is_file() for path in waiting)


def test_a_job_whose_workers_died_is_said_to_be_not_run_by_one_that_is_well(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    clock = [utc_now()]
    one.registry._clock = lambda: clock[0]
    for _ in range(3):
        one.claim()
        assert one.registry.worker_died(wiring.worker_name(one.settings)) == 1
        clock[0] += timedelta(hours=1)
    notice = one.registry.claim_notice(wiring.worker_name(one.settings))
    assert notice is not None
    one.worker.say_not_run(notice)
    job, results, deliveries = one.ending()
    assert (job["state"], job["reason_code"]) == ("failed", "poison")
    assert {result["kind"] for result in results} == {"SR", "SC"}
    assert {delivery["state"] for delivery in deliveries} == {"waiting"}


def test_a_notice_is_settled_where_nobody_wants_it_and_waits_where_the_disk_is_full(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    clock = [utc_now()]
    one.registry._clock = lambda: clock[0]
    for _ in range(3):
        one.claim()
        one.registry.worker_died(wiring.worker_name(one.settings))
        clock[0] += timedelta(hours=1)

    def notice() -> ClaimedJob:
        found = one.registry.claim_notice(wiring.worker_name(one.settings))
        assert found is not None
        return found

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Store, "seal", full)
        for _ in range(5):
            one.worker.say_not_run(notice())
            assert one.registry.claim_notice("other:1") is None
            clock[0] += timedelta(minutes=2)
    one.worker._routes = {name: replace(route, send_not_run=False) for name, route in one.worker._routes.items()}
    one.worker.say_not_run(notice())
    clock[0] += timedelta(days=1)
    assert one.registry.claim_notice("other:1") is None, "it is settled: nobody wants it"
    assert one.ending()[1:] == ([], [])


def test_a_result_that_fails_a_check_is_kept_and_held_with_the_reason(bench: Callable[..., Bench], tmp_path: Path) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study", lambda data: data.replace(b"PHANTOM^THORAX", b"PH\xff\xfeTOM^THORAX"))
    one.worker.attempt(one.claim())
    job, results, deliveries = one.ending()
    assert job["state"] == "done"
    assert {result["kind"] for result in results} >= {"SEG", "SR", "SC"}
    assert len(deliveries) == len(results)
    for delivery in deliveries:
        assert delivery["state"] == "held"
        assert "PatientName holds characters that could not be read" in delivery["last_error"]
