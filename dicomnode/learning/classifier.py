"""Trains a model author's own network to tell classes of images or series apart, as its `configs/train.json` says.

{"kind": "classifier", "cases": "cases.csv", "epochs": 30}: the bundle's own preprocessing and `network_def` (inference.json), a
table of cases (`path`, `patient`, `label`; several labels of classes that do not exclude each other stand with a semicolon
between them), augmentation and a training loop in MONAI's bundle configuration (`classifier_config`), of which train.json may
override any key. Transfer learning: `base` (another bundle) or `base_weights` (a safetensors file), both relative to
`configs/`; what fits by name and shape is taken, held still for `frozen_epochs`, and then tuned together with the rest.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer

from dicomnode.domain.errors import PipelineError, UsageError
from dicomnode.engines import load_pipeline, own_way
from dicomnode.engines.building import build
from dicomnode.engines.bundle import Bundle, flat
from dicomnode.engines.catalogue import inference_file, verified_weights
from dicomnode.engines.digest import file_digest
from dicomnode.engines.own_statements import class_probabilities
from dicomnode.engines.safety import from_memory, read_config
from dicomnode.engines.sidecar import Sidecar, read_sidecar
from dicomnode.engines.weights import read_state
from dicomnode.learning.class_figures import multiclass_figures, multilabel_figures
from dicomnode.learning.classifier_config import configuration
from dicomnode.learning.kept import KeptImages
from dicomnode.learning.reporting import Progress, silent
from dicomnode.learning.splitting import COLUMNS, SPLIT, Base, base_of, left_out, split
from dicomnode.learning.tables import ClassicalReport, load_image, note, read_plan, read_table
from dicomnode.learning.training import save_weights

_NO_CONFIGURATION = frozenset({"kind", "cases", "base", "base_weights", "head", "left_out", SPLIT})


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """image: preprocessed, (channels, x, y[, z]). labels: the classes that are true of it."""

    image: torch.Tensor
    labels: frozenset[str]
    patient: str
    left_out: bool


def is_classifier(folder: Path) -> bool:
    """Whether this module trains the pipeline in `folder`. Raises PipelineError."""
    sidecar = read_sidecar(folder)
    own_way_classifier = sidecar.postprocess == "bundle" and sidecar.task == "classification"
    return (
        own_way_classifier and (folder / "configs" / "train.json").is_file() and read_plan(folder).get("kind") == "classifier"
    )


def train(folder: Path, out: Path, *, seed: int = 0, progress: Progress = silent) -> ClassicalReport:
    """`out/bundle` is a copy of `folder` with new weights and their figures on left-out patients.

    Raises PipelineError, UsageError.
    """
    began = time.monotonic()
    sidecar, plan = _sidecar(folder), read_plan(folder)
    torch.manual_seed(seed)
    content = build(from_memory(read_config(inference_file(folder))), folder, torch.device("cpu"), _WANTED, own_code=None)
    base = base_of(folder, plan)
    with KeptImages(out) as kept:
        samples = _samples(folder, sidecar, plan, tuple(flat(content["preprocessing"])), (seed, base), kept, progress)
        network = content["network_def"]
        taken = _transferred(network, folder, plan)
        _fit(network, samples, sidecar, plan, taken, seed, progress)
        bundle = out / "bundle"
        shutil.copytree(folder, bundle, dirs_exist_ok=True, ignore=_patients_and(out, folder, plan))
        _write_plan(bundle, folder, plan, seed, base)
        weights = bundle / sidecar.bundle.weights
        save_weights(network, weights)
        progress("measuring", 0.0)
        note(bundle, weights, {})  # the digest that loading holds the weights to
        metrics = {"left_out": {**_measured(bundle, [one for one in samples if one.left_out]), **base.doubt}}
    note(bundle, weights, metrics)
    patients = len({one.patient for one in samples})
    seconds = round(time.monotonic() - began, 1)
    return ClassicalReport(bundle, weights, file_digest(weights), len(samples), patients, metrics, seconds)


def evaluate(folder: Path, *, seed: int = 0, progress: Progress = silent) -> dict[str, Any]:
    """The figures of the weights in `folder` on the patients that their training left out. Raises as `train`.

    seed: of the training, where train.json does not say.
    """
    sidecar, plan = _sidecar(folder), read_plan(folder)
    base = base_of(folder, plan)
    if SPLIT in plan:
        seed = int(plan[SPLIT]["seed"])
        if plan[SPLIT] != split(read_table(folder, plan, COLUMNS)[1], plan, seed, base):
            raise UsageError(
                "patients, labels, left_out or the base are not those of the training: whom it left out is no longer known",
                f"put the old table back, or name one of other patients in configs/train.json and take {SPLIT} out",
            )
    steps = load_pipeline(folder, device="cpu").network_bundle.preprocessing
    with tempfile.TemporaryDirectory(prefix="dicomnode-evaluate-") as scratch, KeptImages(Path(scratch)) as kept:
        samples = _samples(folder, sidecar, plan, steps, (seed, base), kept, progress, only_left_out=True)
        return {"left_out": {**_measured(folder, samples), **base.doubt}}


def _patients_and(out: Path, folder: Path, plan: Mapping[str, Any]) -> Callable[[Any, list[str]], set[str]]:
    """For copytree, what of `folder` does not go into the new bundle, which may be given away: table, images, `out` itself."""
    table, lines = read_table(folder, plan, COLUMNS)
    kept_back = {out.resolve(), table, *((table.parent / line["path"]).resolve() for line in lines)} - set(table.parents)
    return lambda where, names: {name for name in names if Path(where, name).resolve() in kept_back}


def _write_plan(bundle: Path, folder: Path, plan: Mapping[str, Any], seed: int, base: Base) -> None:
    """What stood beside the pipeline is found from the new bundle too, also where both move; and who was left out."""
    paths = {"cases": "cases.csv", **{key: plan[key] for key in ("cases", "base", "base_weights") if key in plan}}
    here = (bundle / "configs").resolve()
    placed = {
        key: str(path) if Path(path).is_absolute() else os.path.relpath((folder / "configs" / str(path)).resolve(), here)
        for key, path in paths.items()
    }
    made = {**plan, **placed, SPLIT: split(read_table(folder, plan, COLUMNS)[1], plan, seed, base)}
    (here / "train.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_WANTED = ("preprocessing", "network_def")


def _sidecar(folder: Path) -> Sidecar:
    sidecar = read_sidecar(folder)
    if Path(sidecar.bundle.weights).suffix != ".safetensors":
        raise PipelineError("training writes safetensors", 'set bundle.weights = "models/model.safetensors" in pipeline.toml')
    if sidecar.bundle.weights_sha256 is not None:
        raise PipelineError(
            "pipeline.toml pins the old weights", "take weights_sha256 out: training writes it to metadata.json"
        )
    if sidecar.series:
        raise PipelineError("a classifier is trained on one series a case", "take [[inputs]] and bundle.series out")
    return sidecar


def _samples(
    folder: Path,
    sidecar: Sidecar,
    plan: Mapping[str, Any],
    steps: Sequence[Any],
    split_by: tuple[int, Base],
    kept: KeptImages,
    progress: Progress,
    *,
    only_left_out: bool = False,
) -> list[Sample]:
    """Each case of the table, preprocessed as the node will do it. split_by: seed and base. Raises UsageError."""
    table, lines = read_table(folder, plan, COLUMNS)
    if missing := {"path", "label"} - set(lines[0] if lines else ()):
        raise UsageError(f"the table {table} has no column {', '.join(sorted(missing))}", f"write it: {COLUMNS}")
    not_learned = left_out(lines, plan, *split_by)
    known = {one.label for one in sidecar.classes}
    samples = []
    for number, line in enumerate(lines):
        progress("images", number / len(lines))
        patient = line["patient"]
        if only_left_out and patient not in not_learned:
            continue
        labels = frozenset(one.strip() for one in line["label"].split(";") if one.strip())
        if not labels <= known or (_is_exclusive(sidecar) and len(labels) != 1):
            raise UsageError(f"line {number + 2} of {table} has the label {line['label']!r}", f"use {', '.join(sorted(known))}")
        image = own_way.preprocessed(load_image(table.parent / line["path"]), sidecar.bundle, steps)
        samples.append(Sample(kept.keep(image), labels, patient, patient in not_learned))
    return samples


def _is_exclusive(sidecar: Sidecar) -> bool:
    return sidecar.statement is None or sidecar.statement.exclusive


def _transferred(network: torch.nn.Module, folder: Path, plan: Mapping[str, Any]) -> frozenset[str]:
    """Names of the tensors that came from `base` or `base_weights`; none where the plan names neither. Raises PipelineError."""
    if "base" in plan:
        base = (folder / "configs" / str(plan["base"])).resolve()
        path = verified_weights(base, read_sidecar(base))
    elif "base_weights" in plan:
        path = (folder / "configs" / str(plan["base_weights"])).resolve()
    else:
        return frozenset()
    own, given = network.state_dict(), read_state(path)
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise PipelineError(f"no tensor of {path.name} fits the network", "name weights of the same kind of network")
    network.load_state_dict(fitting, strict=False)
    head = tuple(plan.get("head", ()))
    return frozenset(name for name in fitting if not (head and name.startswith(head)))


def _fit(
    network: torch.nn.Module,
    samples: Sequence[Sample],
    sidecar: Sidecar,
    plan: Mapping[str, Any],
    taken: frozenset[str],
    seed: int,
    progress: Progress,
) -> None:
    """With what was taken held still first, if the plan wants that; then everything."""
    frozen_epochs = int(plan.get("frozen_epochs", 0))
    if frozen_epochs and not taken:
        raise PipelineError("frozen_epochs without weights to hold still", "name base or base_weights in configs/train.json")
    if frozen_epochs and all(name in taken for name, _ in network.named_parameters()):
        raise PipelineError(
            "all of the network was taken over, nothing is left to train", 'name its last layer: "head": ["fc"]'
        )
    items = _items(samples, sidecar)
    if starved := _labels(samples) - _labels([one for one in samples if not one.left_out]):
        raise UsageError(
            f"no case of {', '.join(sorted(starved))} is left to train on", "name more of its patients in the table"
        )
    if not items:
        raise UsageError("no case is left to train on", "name more patients in the table")
    classes = 1 + max(rule.channel for rule in sidecar.classes)
    if frozen_epochs:
        head = {"epochs": frozen_epochs}
        _stage(network, items, plan, taken, head, seed, lambda share: progress("head", share), classes=classes)
    _stage(network, items, plan, frozenset(), {}, seed, lambda share: progress("training", share), classes=classes)


def _labels(samples: Sequence[Sample]) -> frozenset[str]:
    return frozenset[str]().union(*(one.labels for one in samples))


def _items(samples: Sequence[Sample], sidecar: Sidecar) -> tuple[dict[str, torch.Tensor], ...]:
    """What is trained on: image, and label: a class number, or 0 or 1 of each where classes do not exclude each other."""
    channels = {rule.label: rule.channel for rule in sidecar.classes}
    made = []
    for one in samples:
        if one.left_out:
            continue
        true = [channels[label] for label in sorted(one.labels)]
        if _is_exclusive(sidecar):
            label = torch.tensor(true[0])
        else:
            label = torch.zeros(1 + max(channels.values()))
            label[true] = 1.0
        made.append({"image": one.image, "label": label})
    return tuple(made)


def _stage(
    network: torch.nn.Module,
    items: Sequence[Mapping[str, torch.Tensor]],
    plan: Mapping[str, Any],
    frozen: frozenset[str],
    changes: Mapping[str, Any],
    seed: int,
    progress: Any,
    *,
    classes: int = 0,
) -> None:
    """One run of the training configuration. classes: that exclude each other, those without a case among them."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    still = tuple(module for name, module in network.named_modules() if name and _is_held(name, module, frozen))
    own = {key: value for key, value in plan.items() if key not in _NO_CONFIGURATION}
    parser = ConfigParser(
        {**configuration(items[0]["image"].ndim - 1, multilabel=items[0]["label"].ndim > 0), **own, **changes}
    )
    # As tuples and objects, which the parser passes on as they are.
    for key, value in {"network": network, "items": tuple(items), "parameters": tuple(learning), "still": still}.items():
        parser[key] = value
    parser["seed"], parser["weights_of_classes"] = seed, class_weights(items, classes)
    parser.get_parsed_content("initialize")
    torch.use_deterministic_algorithms(False)  # set_determinism asks for it; some layers have no such kernel
    trainer = parser.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: progress(engine.state.epoch / engine.state.max_epochs))
    parser.get_parsed_content("run")
    monai.utils.set_determinism(seed=None)
    network.cpu().requires_grad_(True).eval()


def _is_held(name: str, module: torch.nn.Module, frozen: frozenset[str]) -> bool:
    """A layer with statistics or weights of its own, all of which were taken over."""
    own = [
        f"{name}.{key}" for key in (*dict(module.named_parameters(recurse=False)), *dict(module.named_buffers(recurse=False)))
    ]
    return bool(own) and all(one in frozen for one in own)


class HeldInferer(SimpleInferer):  # type: ignore[misc]  # MONAI is untyped
    """One forward pass; the layers in `still` use their statistics and do not learn new ones."""

    def __init__(self, still: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self._still = still

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Logits."""
        for module in self._still:
            module.eval()
        return super().__call__(inputs, network, *args, **kwargs)


def class_weights(items: Sequence[Mapping[str, torch.Tensor]], classes: int = 0) -> torch.Tensor:
    """Rare classes count as much as common ones: for each class, or (multi-label) of a true one against a false one."""
    labels = torch.stack([one["label"] for one in items])
    if labels.ndim == 1:
        counts = torch.bincount(labels, minlength=classes).clamp(min=1).float()
        return len(labels) / (len(counts) * counts)
    true = labels.sum(dim=0).clamp(min=1)
    return ((len(labels) - true) / true).clamp(0.1, 10.0)


def _measured(folder: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """Accuracy, recall, precision, F1 and AUC through the engine, as the node will run the bundle."""
    pipeline = load_pipeline(folder, device="cpu")
    found = [_said(one.image, pipeline.network_bundle, pipeline.sidecar) for one in samples]
    labels = [one.label for one in pipeline.sidecar.classes]
    columns = np.array(found, dtype=float).reshape(len(found), -1)[:, [one.channel for one in pipeline.sidecar.classes]]
    if not _is_exclusive(pipeline.sidecar):
        thresholds = {one.label: one.threshold for one in pipeline.sidecar.classes}
        return multilabel_figures([one.labels for one in samples], columns, thresholds)
    said = [labels[int(row.argmax())] for row in columns]
    return multiclass_figures([next(iter(one.labels)) for one in samples], said, labels, columns)


def _said(image: torch.Tensor, bundle: Bundle, sidecar: Sidecar) -> list[float]:
    keys = own_way.Keys(sidecar.bundle.image_key, sidecar.bundle.prediction_key)
    item, _ = own_way.predict(bundle, {keys.image: image}, keys, bfloat16=False)
    steps = own_way.steps_for_statements(bundle, keys, sidecar.bundle.activation)
    return class_probabilities(own_way.postprocess(steps, item)[keys.prediction], sidecar)
