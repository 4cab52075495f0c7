"""Several processes on one database."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from tests.registry.samples import Spool, add_series, queue_job, received

PROCESSES, JOBS = 4, 40
FORK = multiprocessing.get_context("fork")


def _work(url: str, name: str, report: Path) -> None:
    registry = Registry(url)
    done, sent = [], []
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < 0.5:
        job = registry.claim_job(name, 60)
        if job is not None:
            registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job, ("SEG", "SR")), destinations=["pacs"])
            done.append(job.key)
        delivery = registry.claim_delivery(name, "pacs", 60)
        if delivery is not None:
            registry.finish_delivery(delivery, DeliveryEvent.ACCEPTED, status=0)
            sent.append(delivery.key)
        if job is not None or delivery is not None:
            idle_since = time.monotonic()
    registry.close()
    report.write_text(json.dumps([done, sent]))


def test_no_job_and_no_delivery_is_taken_twice(url: str, tmp_path: Path) -> None:
    registry = Registry(url)
    registry.prepare()
    for number in range(JOBS):
        add_series(registry, 1, study=f"1.9.{number}", series=f"1.9.{number}.1")
    queue_job(registry)
    registry.close()
    reports = [tmp_path / f"{number}.json" for number in range(PROCESSES)]
    processes = [FORK.Process(target=_work, args=(url, f"w{n}", reports[n])) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    results = [json.loads(report.read_text()) for report in reports]
    done = Counter(key for jobs, _ in results for key in jobs)
    sent = Counter(key for _, deliveries in results for key in deliveries)
    assert done == {f"J{number}": 1 for number in range(1, JOBS + 1)}
    assert sent == {f"D{number}": 1 for number in range(1, 2 * JOBS + 1)}
    again = Registry(url)
    counts = again.status_counts()["counts"]
    assert counts["jobs"]["done"] == JOBS  # type: ignore[index]
    assert counts["deliveries"]["sent"] == 2 * JOBS  # type: ignore[index]
    again.close()


def _claim_and_hang(url: str, claimed: Path) -> None:
    registry = Registry(url)
    job = registry.claim_job("doomed", 60)
    assert job is not None
    claimed.write_text(job.key)
    with registry._database.write():  # it dies in the middle of a write
        signal.pause()


def test_a_worker_killed_in_the_middle_of_a_write_blocks_nobody(url: str, tmp_path: Path) -> None:
    registry = Registry(url)
    registry.prepare()
    add_series(registry, 1)
    queue_job(registry)
    registry.close()
    claimed = tmp_path / "claimed"
    process = FORK.Process(target=_claim_and_hang, args=(url, claimed))
    process.start()
    deadline = time.monotonic() + 30
    while not claimed.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    again = Registry(url)
    assert again.worker_died("doomed") == 1
    assert [row.event for row in again.audit("J1")] == ["created", "claimed", "worker_died"]
    again.close()


def test_many_threads_of_one_receiver_lose_nothing(registry: Registry) -> None:
    threads, each = 8, 25

    def send(thread: int) -> None:
        key = registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
        for number in range(each):
            registry.add_instance(
                received(f"1.2.3.{thread}.{number}", series=f"1.2.3.{thread}", association_key=key), ours=False
            )
        registry.association_ended(key, "released")

    running = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    counts = registry.status_counts()["counts"]
    assert (counts["studies"], counts["series"], counts["instances"]) == (1, threads, threads * each)  # type: ignore[index]
