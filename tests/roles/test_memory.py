"""Memory that runs out in the worker: a lower rung, said in the record, and a fresh process for the next job."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dicomnode.phantom import small_thorax
from dicomnode.roles.lifeline import REPLACE, Lifeline
from tests.roles.test_work import Bench, bench  # noqa: F401 - the fixture

LARGEST = 64**3  # voxels of a window that "fit"


def out_of_memory_above(voxels: int, network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    plainly = network.forward

    def forward(image: torch.Tensor) -> torch.Tensor:
        if image[0, 0].numel() > voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        result: torch.Tensor = plainly(image)
        return result

    return forward


def heard_by_supervisor(one: Bench, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The worker's loop until it ends by itself, and what it told its supervisor."""
    reading, writing = os.pipe()
    monkeypatch.setattr(one.worker, "_lifeline", Lifeline(None, writing))
    one.worker.loop()
    os.close(writing)
    said = os.read(reading, 4096)
    os.close(reading)
    return said


def test_a_job_that_fell_down_the_ladder_is_done_says_so_and_asks_for_a_fresh_worker(
    bench: Callable[..., Bench],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    network = one.worker.pipeline("tiny")._bundle.network
    monkeypatch.setattr(network, "forward", out_of_memory_above(LARGEST, network))
    assert REPLACE in heard_by_supervisor(one, monkeypatch)
    job, results, _ = one.ending()
    assert job["state"] == "done"
    assert job["findings"]["run"]["way"] == "windows of 64 × 64 × 64 voxels, 1 at once on cpu"
    assert {result["kind"] for result in results} == {"SEG", "SR", "SC"}
    paragraph = one.registry.explain("S1")["paragraph"]
    assert "The network fell back: memory ran out with windows of 96 × 96 × 96 voxels" in str(paragraph)


def test_a_job_for_which_no_rung_does_is_tried_again_by_a_fresh_worker(
    bench: Callable[..., Bench],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = bench()
    one.receive(small_thorax(5), tmp_path / "study")
    network = one.worker.pipeline("tiny")._bundle.network
    monkeypatch.setattr(network, "forward", out_of_memory_above(0, network))
    assert REPLACE in heard_by_supervisor(one, monkeypatch)
    job, results, _ = one.ending()
    assert (job["state"], job["reason_code"], job["attempt"]) == ("queued", "out_of_memory", 1)
    assert results == []
