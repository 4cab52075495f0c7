"""What is done where memory runs out, rung by rung, and what is said of it."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.domain.findings import Findings
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.ladder import Rung, rungs, with_less_memory
from dicomnode.engines.selftest import pooled_dice
from dicomnode.phantom import small_thorax
from tests.engines.conftest import TINY, as_volume

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class _StaysHere(torch.nn.Module):
    """A network that notes where it is told to go; there is no GPU here."""

    def __init__(self) -> None:
        super().__init__()
        self.went: list[str] = []

    def to(self, device: Any) -> "_StaysHere":  # type: ignore[override]
        self.went.append(torch.device(device).type)
        return self


def bundle(device: torch.device = CPU, *, windows: tuple[int, ...] = (256, 256, 160), at_once: int = 2) -> Bundle:
    inferer = SlidingWindowInferer(roi_size=windows, sw_batch_size=at_once)
    return Bundle((), _StaysHere(), inferer, device)


def needs(most_voxels: int, device: str = "cpu") -> Callable[[Rung], str]:
    """Fails as CUDA does where a rung wants more voxels at once than that, or another device."""

    def forward(rung: Rung) -> str:
        voxels = 10**9 if rung.whole else (rung.at_once or 1) * int(np.prod(rung.window or (256, 256, 160)))
        if voxels > most_voxels or rung.device.type != device:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return f"{voxels} on {rung.device.type}"

    return forward


def test_windows_get_fewer_and_smaller_until_memory_does() -> None:
    asked = bundle()
    output, descent = with_less_memory(asked, needs(128 * 128 * 96), whole=True)
    assert output == f"{128 * 128 * 96} on cpu"
    assert descent.way == "windows of 128 × 128 × 96 voxels, 1 at once on cpu"
    assert descent.fell == (
        "one window over everything on cpu",
        "windows of 256 × 256 × 160 voxels, 2 at once on cpu",
        "windows of 256 × 256 × 160 voxels, 1 at once on cpu",
    )
    assert (asked.inferer.roi_size, asked.inferer.sw_batch_size) == ((256, 256, 160), 2)  # the next image starts at the top


def test_each_rung_asks_for_less_than_the_one_before() -> None:
    for device in (CPU, GPU):
        ways = list(rungs(bundle(device), whole=True))
        assert [one.device.type for one in ways] == sorted((one.device.type for one in ways), reverse=True)
        on_one = [one for one in ways if one.device == device]
        sizes = [(not one.whole, -(one.at_once or 1), [-side for side in one.window or (256, 256, 160)]) for one in on_one]
        assert sizes == sorted(sizes)
        assert len(set(ways)) == len(ways)


def test_the_cpu_is_the_last_resort_of_a_gpu_and_the_network_comes_back() -> None:
    asked = bundle(GPU)
    output, descent = with_less_memory(asked, needs(10**10, "cpu"), whole=True)
    assert output == f"{10**9} on cpu"
    assert descent.device == CPU
    assert descent.way == "one window over everything on cpu"
    assert all(fell.endswith("on cuda") for fell in descent.fell)
    assert isinstance(asked.network, _StaysHere)
    assert asked.network.went == ["cpu", "cuda"]


def test_where_nothing_does_it_is_said_what_was_tried() -> None:
    with pytest.raises(ResourceExhausted, match="one window over everything on cpu and with windows of 64 × 64 × 64") as raised:
        with_less_memory(bundle(), needs(0), whole=True)
    assert raised.value.retryable


def test_what_is_no_lack_of_memory_is_not_tried_again() -> None:
    tried = []

    def forward(rung: Rung) -> None:
        tried.append(rung)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(PipelineError, match="shapes"):
        with_less_memory(bundle(), forward, whole=True)
    assert len(tried) == 1


def test_an_inferer_without_windows_has_nothing_smaller_to_offer() -> None:
    plain = Bundle((), _StaysHere(), SimpleInferer(), CPU)
    assert [one.words(plain) for one in rungs(plain, whole=False)] == ["the bundle's own inferer on cpu"]


def test_findings_made_on_a_lower_rung_say_so(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = small_thorax(7)
    volume = as_volume(phantom.hu, phantom.affine)
    freely = tiny.run(volume)
    tight = load_pipeline(TINY, device="cpu")
    network = tight._bundle.network
    plainly = copy.copy(network.forward)

    def forward(image: torch.Tensor) -> torch.Tensor:
        if image[0, 0].numel() > 64**3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plainly(image)

    monkeypatch.setattr(network, "forward", forward)
    tightly = tight.run(volume)
    assert isinstance(freely, Findings)
    assert isinstance(tightly, Findings)
    assert "fell back" not in freely.run
    assert tightly.run["fell back"] == "memory ran out with windows of 96 × 96 × 96 voxels, 1 at once on cpu"
    assert tightly.run["way"] == "windows of 64 × 64 × 64 voxels, 1 at once on cpu"
    assert pooled_dice(freely, tightly) > 0.99  # at the windows' edges a filter sees padding


def test_memory_that_really_runs_out_is_recognised(tmp_path: Path) -> None:
    """torch's and numpy's own words under a real limit."""

    program = """
import numpy as np, resource, torch
from dicomnode.engines.devices import is_out_of_memory
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, resource.RLIM_INFINITY))
network = torch.nn.Conv3d(1, 64, 3)
for work in (lambda: torch.zeros(1 << 30), lambda: np.ones(1 << 30), lambda: network(torch.zeros(1, 1, 128, 256, 256))):
    try:
        work()
    except BaseException as error:
        assert is_out_of_memory(error), repr(error)
    else:
        raise SystemExit("it fitted")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
