"""What is done where memory runs out: the same network in smaller windows, fewer at once, and last on the CPU.

Each rung asks for less memory than the one before. What was done is told in words, so that the record of a job can say it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.devices import is_out_of_memory
from dicomnode.engines.heap import give_back
from dicomnode.engines.reasons import first_line

_LEAST_SIDE = 64  # of a window, in voxels: smaller ones show a network too little around each voxel
_SIDE_STEP = 32  # what the strides of common networks multiply to, or a multiple of it
_WHOLE = "one window over everything"
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to run a bundle's network. window: sides in voxels, None for the bundle's own; at_once: windows in one batch."""

    device: torch.device
    whole: bool = False
    window: tuple[int, ...] | None = None
    at_once: int | None = None

    def words(self, bundle: Bundle) -> str:
        """For people."""
        what = _WHOLE
        if not self.whole:
            sides = self.window or _window_of(bundle)
            what = f"windows of {' × '.join(map(str, sides))} voxels" if sides else "the bundle's own inferer"
            what += f", {self.at_once} at once" if self.at_once else ""
        return f"{what} on {self.device.type}"


@dataclass(frozen=True, slots=True)
class Descent:
    """How a network was run in the end. `fell` holds the ways for which memory did not do, in words; mostly there are none."""

    way: str
    device: torch.device
    fell: tuple[str, ...] = ()


def rungs(bundle: Bundle, *, whole: bool) -> Iterator[Rung]:
    """From the way that was asked for to the one with the least memory. whole: one window over everything is asked for."""
    for device in dict.fromkeys((bundle.device, torch.device("cpu"))):
        if whole:
            yield Rung(device, whole=True)
        at_once = getattr(bundle.inferer, "sw_batch_size", None)
        yield Rung(device, at_once=at_once)
        while at_once is not None and at_once > 1:
            at_once //= 2
            yield Rung(device, at_once=at_once)
        window = _window_of(bundle)
        while (smaller := tuple(map(_halved, window))) != window:
            window = smaller
            yield Rung(device, window=window, at_once=at_once)


def with_less_memory(bundle: Bundle, forward: Callable[[Rung], Output], *, whole: bool = False) -> tuple[Output, Descent]:
    """What `forward` gives on the first rung for which memory does, and how that was.

    `forward` finds the bundle's inferer and network set as the rung says; they are as before when this returns.
    Raises ResourceExhausted where no rung does, PipelineError where the network fails otherwise.
    """
    fell: list[str] = []
    for rung in rungs(bundle, whole=whole):
        give_back()
        try:
            with _set_to(bundle, rung):
                return forward(rung), Descent(rung.words(bundle), rung.device, tuple(fell))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise PipelineError(
                    f"the network failed: {first_line(error)}", "check the bundle's network and inferer"
                ) from error
            fell.append(rung.words(bundle))
        # Outside the handler: the traceback, which holds what was allocated, is gone by now.
        if bundle.device.type == "cuda":
            torch.cuda.empty_cache()
    raise ResourceExhausted(f"memory ran out with {' and with '.join(_ends(fell))}", "give the worker more memory")


def _ends(fell: Sequence[str]) -> Sequence[str]:
    return fell if len(fell) < 2 else (fell[0], fell[-1])


@contextmanager
def _set_to(bundle: Bundle, rung: Rung) -> Iterator[None]:
    before = {name: getattr(bundle.inferer, name) for name in ("sw_batch_size", "roi_size") if hasattr(bundle.inferer, name)}
    try:
        if rung.at_once is not None:
            bundle.inferer.sw_batch_size = rung.at_once
        if rung.window is not None:
            bundle.inferer.roi_size = rung.window
        if rung.device != bundle.device:
            bundle.network.to(rung.device)
        yield
    finally:
        for name, value in before.items():
            setattr(bundle.inferer, name, value)
        if rung.device != bundle.device:
            bundle.network.to(bundle.device)


def _window_of(bundle: Bundle) -> tuple[int, ...]:
    """Sides of the inferer's window in voxels; empty where it has none."""
    sides = getattr(bundle.inferer, "roi_size", ())
    return tuple(sides) if isinstance(sides, list | tuple) else ()


def _halved(side: int) -> int:
    """Half of it, up to a multiple that networks take, and not below the least."""
    if side <= _LEAST_SIDE:  # -1 too, which means all of the image
        return side
    return max(_LEAST_SIDE, -(-side // (2 * _SIDE_STEP)) * _SIDE_STEP)
