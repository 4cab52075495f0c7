"""The subject `inference`: from a series' files to its findings, against the naive MONAI script on the same files and weights.

Every subject is one process that stays, its model loaded; rounds go through them in turn: a machine that is busy now and
idle then slows all of them alike.

Dice to the script is of all voxels called lung or lesion, on the source grid and on both sides with nothing taken out: ours
after its rules (no islands below 15 ml, nothing outside the body), the script's as its argmax stands. Dice to the phantom
says of each side how near it comes to what was planted: where the two differ, which of them is wrong. They differ most in a
scan that cuts the lungs: a window larger than the scan is filled up with black by the script, and its lungs end early there.
"""

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.bench.inference_goals import GPU, STEPS, goals
from dicomnode.bench.inference_process import OURS_AT, Subject
from dicomnode.bench.inference_subject import NAIVE
from dicomnode.bench.measuring import OURS, Rounds, ratios, rotated
from dicomnode.bench.report import LeftOut, Report, machine
from dicomnode.domain.errors import UsageError
from dicomnode.settings import shipped

_PACKAGES = ("numpy", "scipy", "torch", "monai", "nibabel", "pydicom")
_SEED = 900_000_007  # no training draws it
_PLANTED = "planted"
_SLICE_SPACING_MM = 3.0  # 100 slices show a whole chest; 300 slices of a third of it the same chest
Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class InferencePlan:
    """What to measure. slices: of the timed series; memory_slices: of the one that is read for its memory, 0 for none."""

    rounds: int = 3
    slices: int = 100
    memory_slices: int = 300
    size: int = 512
    device: str = "auto"
    bundle: Path | None = None  # None: the shipped chest_ct
    most_s: float | None = None
    subjects: tuple[str, ...] = ()

    def chosen(self) -> tuple[str, ...]:
        """Subjects by name. Raises UsageError for unknown ones."""
        known = (*OURS_AT, NAIVE)
        if unknown := [name for name in self.subjects if name not in known]:
            raise UsageError(f"there is no subject {unknown[0]!r}", f"the subjects are {', '.join(known)}")
        return tuple(name for name in known if not self.subjects or name in self.subjects)


def inference(plan: InferencePlan, say: Say) -> Report:
    """Measures the plan. Raises MeasurementFailed where a subject of ours fails, UsageError for unknown names."""
    names = plan.chosen()
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as scratch:
        bench = _Bench(plan, Path(scratch), say)
        bench.time(names)
        bench.measure_memory([name for name in names if name != NAIVE])
    rows = bench.rounds.rows()
    told = ratios(rows)
    return Report(
        subject="inference",
        machine=machine(Path(tempfile.gettempdir())),
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        began=began,
        seconds=time.time() - began,
        rows=rows,
        ratios=told,
        best_ratios=ratios(rows, best=True),
        goals=tuple(goals(rows, told, bench.notes, slices=plan.slices)),
        left_out=tuple(bench.left_out),
        notes=bench.notes,
    )


class _Bench:
    """One bench under way."""

    def __init__(self, plan: InferencePlan, scratch: Path, say: Say) -> None:
        self._plan, self._scratch, self._say = plan, scratch, say
        self._bundle = plan.bundle or shipped("pipelines") / "chest_ct"
        self.rounds = Rounds()
        self.left_out: list[LeftOut] = []
        from dicomnode.engines.devices import choose_device, cpu_bfloat16

        self._device = str(choose_device(plan.device))
        self.notes: dict[str, object] = {"device": self._device, "bfloat16_units": cpu_bfloat16(), "slices": plan.slices}

    def time(self, names: Sequence[str]) -> None:
        """All rounds, as long as there is time for another one; before them each subject once, unmeasured."""
        folder = self._series(self._plan.slices)
        began = time.monotonic()
        with ExitStack() as stack:
            subjects = []
            for name in names:
                self._say(f"{name}: warm", 0.0)
                subject = stack.enter_context(Subject(name, self._bundle, self._device))
                subject.warm(folder, self._lungs(name))
                subjects.append(subject)
            self._compare(names)
            for number in range(self._plan.rounds):
                started = time.monotonic()
                for subject in rotated(subjects, number):
                    self._say(subject.name, number / self._plan.rounds)
                    self._take(subject, folder)
                self.notes["rounds"] = number + 1
                now = time.monotonic()
                if self._plan.most_s is not None and now - began + (now - started) > self._plan.most_s:
                    break

    def _take(self, subject: Subject, folder: Path) -> None:
        """One round of one subject. The script is in each of our speeds' cases: ratios are made within a case."""
        told = subject.run(folder)
        add, slices = self.rounds.add, self._plan.slices
        total_s = sum(told.steps_s[step] for step in STEPS)
        cases = (subject.name,) if subject.name != NAIVE else OURS_AT
        who = OURS if subject.name != NAIVE else NAIVE
        for case in cases:
            add(case, who, "ms/image", 1000 * total_s / slices)
            add(case, who, "ms CPU/image", 1000 * told.cpu_s / slices)
            for step in STEPS:
                add(case, f"{who}: {step}", "s", told.steps_s[step])
            if subject.name != NAIVE:
                add(case, who, "s but for forward", total_s - told.steps_s["forward"])
                if self._device != "cpu":
                    add(case, who, GPU, total_s / told.steps_s["forward"])
        add(f"{slices} slices", subject.name, "MB peak", told.peak_mb)
        if told.run:
            self.notes[f"run at {subject.name}"] = told.run

    def measure_memory(self, names: Sequence[str]) -> None:
        """The longer series through a fresh process for each speed."""
        slices = self._plan.memory_slices
        if not slices:
            return
        self._say(f"{slices} slices", 0.9)
        folder = self._series(slices)
        for name in names:
            self._say(f"{name}: memory for {slices} slices", 0.95)
            with Subject(name, self._bundle, self._device) as subject:
                subject.warm(folder, None)
                told = subject.run(folder)
            self.rounds.add(f"{slices} slices", name, "MB peak", told.peak_mb)
            self.rounds.add(f"{slices} slices", name, "s", sum(told.steps_s[step] for step in STEPS))

    def _series(self, slices: int) -> Path:
        """A phantom's files: the same chest in so many slices."""
        from dicomnode.phantom import ThoraxSpec, thorax, write_study

        self._say(f"phantom of {slices} slices", 0.0)
        spacing_mm = _SLICE_SPACING_MM * 100 / max(slices, 100)
        pixel_mm = 0.7 * 512 / self._plan.size
        spec = ThoraxSpec(_SEED, slices=slices, size=self._plan.size, slice_spacing_mm=spacing_mm, pixel_spacing_mm=pixel_mm)
        folder = self._scratch / f"{slices}"
        phantom = thorax(spec)
        np.savez_compressed(self._lungs(_PLANTED), lungs=phantom.labels > 0)  # it lies on canonical axes
        write_study(phantom, folder)
        return folder

    def _lungs(self, name: str) -> Path:
        return self._scratch / f"{name}.npz"

    def _compare(self, names: Sequence[str]) -> None:
        """Dice of the lungs, lesions in them included, to those of the script and to those that were planted."""
        planted = np.load(self._lungs(_PLANTED))["lungs"]
        found = {name: np.load(self._lungs(name))["lungs"] for name in names}
        for name, lungs in found.items():
            for case in (name,) if name != NAIVE else OURS_AT:
                self.rounds.add(case, OURS if name != NAIVE else NAIVE, "Dice to the phantom", _dice(lungs, planted))
        if NAIVE not in found:
            self.left_out.append(LeftOut("Dice to the script", NAIVE, "it was not asked for"))
            return
        for name in names:
            if name != NAIVE:
                self.rounds.add(name, OURS, "Dice to the script", _dice(found[name], found[NAIVE]))


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float(np.count_nonzero(one & other)) / float(np.count_nonzero(one) + np.count_nonzero(other))
