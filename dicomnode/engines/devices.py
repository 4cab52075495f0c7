"""Which device computes, and in which precision."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from dicomnode.domain.errors import PipelineError

_TIMED_WINDOW = (64, 64, 32)
_CLEARLY_FASTER = 0.8  # bf16 must take at most this share of fp32's time; below that noise decides
_TIMED_ROUNDS = 8
_TIMED_ENOUGH_S = 2.0
_MEMORY_WORDS = (
    *("out of memory", "not enough memory", "can't allocate memory", "bad_alloc", "could not create a memory"),
    *("cudnn_status_alloc_failed", "cublas_status_alloc_failed"),
)


def choose_device(wanted: str) -> Any:
    """The torch.device for "auto", "cpu", "cuda" or "cuda:1". Raises PipelineError where it is not there."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise PipelineError(f"there is no device {wanted!r}", 'use "auto", "cpu" or "cuda"') from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PipelineError("no CUDA device was found", 'set device = "cpu" or "auto"')
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise PipelineError(
            f"there is no device {wanted!r}: {count} CUDA devices were found", f'use "cuda:0" … "cuda:{count - 1}"'
        )
    if device.type not in {"cpu", "cuda"}:
        raise PipelineError(f"device {wanted!r} is not supported", 'use "auto", "cpu" or "cuda"')
    return device


def machine_name(device: Any) -> str:
    """What decides how precise and how fast a network is here: processor or card, its number formats, torch's version."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{cpu_bfloat16()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def cpu_bfloat16() -> Literal["AMX", "AVX512", "none"]:
    """Which of this processor's units compute in bfloat16."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    return "AMX" if "amx_bf16" in flags else "AVX512" if "avx512_bf16" in flags else "none"


def bfloat16_is_faster(network: Any, device: Any) -> bool:
    """Times a window in fp32 and in bf16: PyTorch claims bf16 support on CPUs without AMX, where it takes twice as long."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    first = next((one for one in network.modules() if isinstance(one, torch.nn.Conv3d | torch.nn.Conv2d)), None)
    if first is None:  # an exported graph, whose numbers are fixed
        return False
    flat = isinstance(first, torch.nn.Conv2d)
    window = torch.zeros(1, first.in_channels, *(_TIMED_WINDOW[:2] if flat else _TIMED_WINDOW))
    window = window.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)

    def seconds(low_precision: bool) -> float:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            begin = time.perf_counter()
            network(window)
            return time.perf_counter() - begin

    try:
        for low_precision in (False, True):  # the first window pays for kernels
            seconds(low_precision)
        return clearly_faster(seconds)
    except RuntimeError:  # it wants windows of another size: then nothing is known, and fp32 is right
        return False


def clearly_faster(seconds: Callable[[bool], float]) -> bool:
    """Whether low precision (True) pays; each is timed in turn, the quickest of a few counts: other work only ever slows.

    A single timing chose fp32 on a busy machine with AMX, for as long as the worker lived.
    """
    best = {False: math.inf, True: math.inf}
    spent = 0.0
    for _ in range(_TIMED_ROUNDS):
        for low_precision in (False, True):
            took = seconds(low_precision)
            best[low_precision] = min(best[low_precision], took)
            spent += took
        if spent > _TIMED_ENOUGH_S:
            break
    return best[True] < _CLEARLY_FASTER * best[False]


@contextmanager
def computing(device: Any, *, bfloat16: bool) -> Iterator[None]:
    """Inference mode; deterministic kernels and true fp32 on a GPU."""
    import torch

    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; on a CPU, and for CUDA's libraries, torch raises a plain RuntimeError."""
    import torch

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)
