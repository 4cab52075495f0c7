"""The training of a bundle, start to end: cases, a base on phantoms alone, then the real scans mixed in.

All stages learn with the statistics of each batch (frozen ones teach less); at the end those of many batches are measured,
stay, and a last stage settles the weights on them (`precision`). The bundle's own `configs/train.json` says network, loss,
optimizer, schedule and numbers of steps; MONAI's bundle parser and ignite's trainer run it. The base saw no real voxel, so a
mixed stage without one scan gives a model that never saw that scan: that is how the figures on real data are honest.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from safetensors.torch import load_file, save_file

from dicomnode.learning.cache import list_cases, save_case
from dicomnode.learning.cases import phantom_case
from dicomnode.learning.judging import fit_calibration, gather, write_calibration
from dicomnode.learning.mining import mine
from dicomnode.learning.precision import measure_statistics
from dicomnode.learning.real import planted_case, prepare
from dicomnode.learning.real_data import available, training_scan
from dicomnode.learning.reporting import Progress, silent

WEIGHTS = Path("models/model.safetensors")
_SECONDS_PER_STEP = 0.5  # one core with AMX, otherwise idle; only to turn `minutes` into steps
_SECONDS_PER_CASE = 3.0
_MEASURED_BATCHES = 60
# Large patches at a small rate: what the network sees in use is larger still.
_SETTLING = {"patch": [112, 112, 64], "batch_size": 2, "learning_rate": 0.0004, "frozen_statistics": True}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done. Numbers of epochs are of `steps_per_epoch` steps (configs/train.json)."""

    phantoms: int = 740
    variants: int = 10  # of each real scan, each with other planted nodules
    first_epochs: int = 30  # phantoms
    second_epochs: int = 150  # phantoms, with the errors that the first stage left
    base_epochs: int = 70  # phantoms, with the errors that the second stage left
    mixed_epochs: int = 28  # phantoms and real scans
    settling_epochs: int = 5  # statistics frozen
    fold_epochs: int = 8  # mixed, without one of the real scans
    fold_settling_epochs: int = 2
    mined_phantoms: int = 120  # looked through after the first stage
    mined_again: int = 360  # and after the second
    judged_phantoms: int = 40  # on which the judgement of candidates is fitted


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training made. `folds`: real series → weights of the model that did not see it."""

    bundle: Path
    weights: Path
    weights_sha256: str
    base_weights: Path
    folds: dict[str, Path]
    seed: int
    plan: Plan
    phantoms: int
    real_scans: tuple[str, ...]
    last_loss: float
    seconds: float


def train(
    bundle_dir: Path,
    out_dir: Path,
    *,
    seed: int = 0,
    minutes: float | None = None,
    real_data: Path | None = None,
    progress: Progress = silent,
    plan: Plan | None = None,
    leave_one_out: bool = False,
) -> TrainingReport:
    """Train the bundle anew: `out_dir/bundle` is a copy of `bundle_dir` with new weights.

    minutes: about how long it may take; None takes the whole plan. real_data: folder with the real series, None trains on
    phantoms alone. leave_one_out: also one model per real chest series that did not see it, for `evaluate`.
    The same seed, plan, data and number of threads give the same weights.
    """
    began = time.monotonic()
    plan = plan or plan_for(minutes)
    cache = out_dir / "cache"
    make_phantom_cases(cache / "phantom", plan.phantoms, seed, progress)
    scans = make_real_cases(cache / "real", real_data, plan.variants, seed, progress)
    stages = _Stages(bundle_dir, cache, seed, progress)
    first, second, base, final = (out_dir / f"{name}.safetensors" for name in ("first", "second", "base", "final"))
    stages.fit(first, plan.first_epochs, real=False)
    stages.settle(first, 1, real=False)  # only to look through it
    stages.mine(first, scans, plan.mined_phantoms)
    stages.fit(second, plan.second_epochs, real=False, start=first)
    stages.settle(second, 1, real=False)
    stages.mine(second, scans, plan.mined_again)
    stages.fit(base, plan.base_epochs, real=False, start=second)
    folds = {scan: out_dir / f"without_{scan}.safetensors" for scan in scans if leave_one_out}
    for scan, weights in folds.items():
        stages.fit(weights, plan.fold_epochs, real=True, start=base, held_out=(scan,))
        stages.settle(weights, plan.fold_settling_epochs, real=True, held_out=(scan,))
    stages.fit(final, plan.mixed_epochs, real=bool(scans), start=base)
    loss = stages.settle(final, plan.settling_epochs, real=bool(scans))
    bundle = out_dir / "bundle"
    shutil.copytree(bundle_dir, bundle, dirs_exist_ok=True)
    weights = bundle / WEIGHTS
    weights.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(final, weights)
    judged = gather(bundle, plan.judged_phantoms, weights=final, progress=progress)
    if judged.has_both_kinds:  # too short a training finds nothing: then the old judgement stays
        write_calibration(bundle, fit_calibration(judged))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    count = len(list_cases(cache / "phantom"))
    elapsed = time.monotonic() - began
    return TrainingReport(bundle, weights, sha256, base, folds, seed, plan, count, scans, loss, elapsed)


def plan_for(minutes: float | None) -> Plan:
    """The full plan, or one scaled to about `minutes` on two idle cores."""
    full = Plan()
    if minutes is None:
        return full
    steps = 50 * (full.first_epochs + full.second_epochs + full.base_epochs + full.mixed_epochs + full.settling_epochs)
    whole = (steps * _SECONDS_PER_STEP + full.phantoms * _SECONDS_PER_CASE) / 60
    share = min(1.0, minutes / whole)
    counts = {name: max(1, round(getattr(full, name) * share)) for name in Plan.__dataclass_fields__}
    return replace(full, **counts | {"phantoms": max(4, counts["phantoms"])})


def make_phantom_cases(folder: Path, count: int, seed: int, progress: Progress = silent) -> None:
    """`count` phantoms on the network's grid; those already in `folder` are kept."""
    known = set(list_cases(folder))
    for number in range(count):
        progress("phantoms", number / count)
        if f"phantom-{seed * 1_000_000 + number}" not in known:
            save_case(folder, phantom_case(seed * 1_000_000 + number))


def make_real_cases(
    folder: Path, real_data: Path | None, variants: int, seed: int, progress: Progress = silent
) -> tuple[str, ...]:
    """Every real series that may be used, `variants` times with other nodules planted. Gives the names of the chest series."""
    series = available(real_data)
    if real_data is None or not series:
        return ()
    known = set(list_cases(folder))
    for number, one in enumerate(series):
        progress("real scans", number / len(series))
        wanted = variants if one.is_chest else 1
        if all(f"{one.folder}-{variant}" in known for variant in range(wanted)):
            continue
        prepared = prepare(training_scan(real_data, one))
        for variant in range(wanted):
            save_case(folder, planted_case(prepared, variant, seed, nodules=4 + (variant * 5) % 12))
    return tuple(one.folder for one in series if one.is_chest)


@dataclass(frozen=True, slots=True)
class _Stages:
    bundle_dir: Path
    cache: Path
    seed: int
    progress: Progress

    def mine(self, weights: Path, scans: Sequence[str], phantoms: int) -> None:
        """Note what the network takes for lesions and what it misses, in one variant of each real scan and in some phantoms."""
        self.progress("hard cases", 0.0)
        network = network_of(self.bundle_dir, weights)
        mine(network, self.cache / "real", [f"{scan}-0" for scan in scans])
        mine(network, self.cache / "phantom", list_cases(self.cache / "phantom")[:phantoms])

    def fit(
        self, weights: Path, epochs: int, *, real: bool, start: Path | None = None, held_out: Sequence[str] = (), **changes: Any
    ) -> float:
        """Run configs/train.json once; gives the mean loss of the last epoch."""
        changes = {"cache_dir": str(self.cache), "epochs": epochs, "seed": self.seed, "held_out": list(held_out), **changes}
        if not real:
            changes["shares"] = [1.0, 0.0]
        what = weights.stem.replace("_", " ")
        return fit(
            self.bundle_dir,
            weights,
            changes,
            start=start,
            measure_batches=_MEASURED_BATCHES if changes.get("frozen_statistics") else 0,
            progress=lambda share: self.progress(what, share),
        )

    def settle(self, weights: Path, epochs: int, *, real: bool, held_out: Sequence[str] = ()) -> float:
        """Measure the statistics of batch normalization, freeze them and go on a little; the mean loss of the last epoch."""
        return self.fit(weights, epochs, real=real, start=weights, held_out=held_out, **_SETTLING)


def fit(
    bundle_dir: Path,
    weights: Path,
    changes: dict[str, Any],
    *,
    start: Path | None = None,
    measure_batches: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> float:
    """Train with `configs/train.json`, its top-level keys overridden by `changes`; write `weights`, give the last epoch's loss.

    start: weights to go on from. measure_batches: over how many batches to measure the statistics of batch normalization
    first. Weights are written after each epoch, so that a stopped training leaves something.
    """
    parser = ConfigParser()
    parser.read_config(bundle_dir / "configs" / "train.json")
    parser["bundle_root"] = str(bundle_dir)
    for key, value in changes.items():
        parser[key] = value
    parser.get_parsed_content("imports")
    parser.get_parsed_content("initialize")
    torch.use_deterministic_algorithms(False)  # set_determinism asks for it; transposed convolutions on GPUs have none
    network = parser.get_parsed_content("network")
    if start is not None:
        network.load_state_dict(load_file(start))
    if measure_batches:
        loader, device = parser.get_parsed_content("train#dataloader"), parser.get_parsed_content("device")
        measure_statistics(network, (batch["image"].to(device) for batch in islice(loader, measure_batches)))
    trainer = parser.get_parsed_content("train#trainer")
    losses: list[float] = []

    def at_step(engine: Any) -> None:
        output = engine.state.output
        losses.append(float((output[0] if isinstance(output, list) else output)["loss"]))

    def at_epoch(engine: Any) -> None:
        if engine.state.epoch < engine.state.max_epochs:
            del losses[:]
        save_weights(network, weights)
        progress(engine.state.epoch / engine.state.max_epochs)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, at_step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, at_epoch)
    parser.get_parsed_content("run")
    monai.utils.set_determinism(seed=None)
    return sum(losses) / len(losses)


def network_of(bundle_dir: Path, weights: Path) -> torch.nn.Module:
    """The bundle's network with `weights`, on the device that the training uses."""
    parser = ConfigParser()
    parser.read_config(bundle_dir / "configs" / "train.json")
    parser.get_parsed_content("imports")
    network: torch.nn.Module = parser.get_parsed_content("network")
    network.load_state_dict(load_file(weights))
    return network


def save_weights(network: torch.nn.Module, path: Path) -> None:
    """The state as safetensors, written aside and renamed: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, part)
    part.replace(path)
