"""Which device and which precision is chosen, and that a busy machine does not choose it.

Of a GPU only what torch is asked of it is played here: no test machine has one.
"""

from collections.abc import Callable
from itertools import cycle

import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.devices import bfloat16_is_faster, choose_device, clearly_faster, is_out_of_memory, machine_name
from dicomnode.engines.ladder import Descent
from dicomnode.engines.pipeline import _way


def clock(fp32: list[float], bf16: list[float]) -> Callable[[bool], float]:
    """Windows' seconds in the order in which they are timed."""
    timings = {False: cycle(fp32), True: cycle(bf16)}
    return lambda low_precision: next(timings[low_precision])


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [
        ([0.05], [0.02], True),
        ([0.05], [0.048], False),
        ([0.05], [0.1], False),
        ([0.05, 0.06, 0.05], [0.4, 0.02, 0.3], True),
        ([0.4, 0.05, 0.3], [0.1, 0.1, 0.1], False),
    ],
)
def test_the_quickest_window_of_each_precision_decides_not_one_that_other_work_slowed(
    fp32: list[float], bf16: list[float], chosen: bool
) -> None:
    assert clearly_faster(clock(fp32, bf16)) is chosen


def test_a_slow_model_is_timed_only_until_seconds_are_spent() -> None:
    taken: list[bool] = []

    def slow(low_precision: bool) -> float:
        taken.append(low_precision)
        return 3.0 if low_precision else 6.0

    assert clearly_faster(slow)
    assert taken == [False, True]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_where_there_is_one_and_any_by_its_number() -> None:
    chosen = {wanted: str(choose_device(wanted)) for wanted in ("auto", "cuda", "cuda:1", "cpu")}
    assert chosen == {"auto": "cuda", "cuda": "cuda", "cuda:1": "cuda:1", "cpu": "cpu"}
    with pytest.raises(PipelineError, match="'cuda:2': 2 CUDA devices") as raised:
        choose_device("cuda:2")
    assert "cuda:1" in raised.value.remedy


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("wanted", "why"),
    [("cuda", "no CUDA device"), ("cuda:1", "no CUDA device"), ("tpu9", "no device 'tpu9'"), ("meta", "not supported")],
)
def test_without_a_gpu_auto_is_the_cpu_and_what_is_not_there_is_said(wanted: str, why: str) -> None:
    assert str(choose_device("auto")) == "cpu"
    with pytest.raises(PipelineError, match=why) as raised:
        choose_device(wanted)
    assert raised.value.remedy


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_lack_of_memory_is_known_by_the_words_of_cuda_its_libraries_and_the_cpu(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
    ],
)
def test_what_is_no_lack_of_memory_is_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_computes_in_bf16_where_it_says_that_it_can(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert bfloat16_is_faster(torch.nn.Conv3d(1, 1, 1), torch.device("cuda")) is supported


def test_a_verdict_of_the_self_test_belongs_to_a_card_and_a_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    names = {machine_name(torch.device(device)) for device in ("cuda:0", "cuda:1", "cpu")}
    assert len(names) == 3
    assert all(torch.__version__ in name for name in names)


def test_what_fell_from_a_gpu_to_the_cpu_is_told_with_the_precision_that_it_had_there() -> None:
    fell = Descent("one window over everything on cpu", torch.device("cpu"), ("one window over everything on cuda",))
    assert _way(fell, bfloat16=True) == {
        "precision": "float32",
        "way": "one window over everything on cpu",
        "fell back": "memory ran out with one window over everything on cuda",
    }
    stayed = Descent("windows of 64 × 64 × 64 voxels on cuda", torch.device("cuda"), ("one window over everything on cuda",))
    assert _way(stayed, bfloat16=True)["precision"] == "bfloat16"
