"""An nnU-Net v2 model folder as files: what it holds, what its plans may name, a `pipeline.toml` for it. Loads no torch."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.drafting import Draft
from dicomnode.engines.findings import CheckFinding
from dicomnode.engines.rules import NnunetRules
from dicomnode.engines.safety import read_config
from dicomnode.engines.sidecar import Sidecar

PLANS, DATASET = "plans.json", "dataset.json"
INSTALL = 'install "dicomnode-ai[nnunet]" (nnunetv2) beside the node'
_NETWORKS = re.compile(r"dynamic_network_architectures\.[\w.]+$")
_LAYERS = re.compile(r"torch\.nn\.(modules\.\w+\.)?\w+$")
_RESAMPLING = re.compile(r"resample_data_or_seg(_to_shape|_to_spacing)?$|resample_torch_(simple|fornnunet)$|no_resampling_\w+$")
_PREPROCESSORS = frozenset({"DefaultPreprocessor"})
_NORMALIZATIONS = re.compile(r"(CT|ZScore|NoNorm|NoNormalization|RescaleTo01|RGBTo01)\w*$")
_BACKGROUND = 0
_NOT_STATED = "Not stated by the model. Not for clinical use."
_DEFAULT_MODALITIES = {"CT": "CT", "PET": "PT", "PT": "PT", "US": "US"}


def is_nnunet(folder: Path) -> bool:
    """Whether it is laid out as nnU-Net's training leaves a model."""
    return (folder / PLANS).is_file() and (folder / DATASET).is_file()


def checkpoints(folder: Path, rules: NnunetRules) -> tuple[Path, ...]:
    """One checkpoint for each fold that is used. Raises PipelineError where one is missing."""
    folds = [folder / f"fold_{fold}" for fold in rules.folds] or sorted(folder.glob("fold_*"))
    found = [fold / rules.checkpoint for fold in folds]
    if not found:
        raise PipelineError(f"{folder} has no fold_0", "copy the folders of the trained folds into it")
    if missing := [path for path in found if not path.is_file()]:
        raise PipelineError(f"the checkpoint {missing[0]} is missing", "correct [nnunet] folds or checkpoint, or copy it there")
    return tuple(found)


def plan_objections(plans: Mapping[str, Any]) -> Iterator[str]:
    """Names in the plans that nnU-Net would look up and that are none of its own: a class there can be any class there is."""
    for name, configuration in dict(plans.get("configurations") or {}).items():
        if not isinstance(configuration, Mapping):
            yield f"configuration {name} is no table"
            continue
        architecture = configuration.get("architecture") or {}
        network = str(architecture.get("network_class_name", ""))
        if network and not _NETWORKS.match(network):
            yield f"{name}: network_class_name {network!r} is none of dynamic_network_architectures"
        arguments = architecture.get("arch_kwargs") or {}
        for key in architecture.get("_kw_requires_import") or ():
            value = arguments.get(key)
            if value is not None and not _LAYERS.match(str(value)):
                yield f"{name}: {key} {value!r} is no layer of torch.nn"
        for key, value in configuration.items():
            if key.startswith("resampling_fn_") and not key.endswith("_kwargs") and not _RESAMPLING.match(str(value)):
                yield f"{name}: {key} {value!r} is no resampling of nnU-Net"
        if configuration.get("preprocessor_name", "DefaultPreprocessor") not in _PREPROCESSORS:
            yield f"{name}: preprocessor {configuration['preprocessor_name']!r} is not nnU-Net's default one"
        for scheme in configuration.get("normalization_schemes") or ():
            if not _NORMALIZATIONS.match(str(scheme)):
                yield f"{name}: normalization {scheme!r} is none of nnU-Net's"
    label_manager = plans.get("label_manager", "LabelManager")
    if label_manager != "LabelManager":
        yield f"label_manager {label_manager!r} is not nnU-Net's own"


def nnunet_findings(folder: Path, sidecar: Sidecar) -> Iterator[CheckFinding]:
    """What keeps the folder from being run, and what it wants installed."""
    try:
        plans, dataset = read_config(folder / PLANS), read_config(folder / DATASET)
        files = checkpoints(folder, sidecar.nnunet)
        names, channels = labels_of(dataset), channels_of(dataset)
    except PipelineError as error:
        yield CheckFinding("error", error.what, error.remedy)
        return
    yield CheckFinding("info", f"{len(files)} checkpoint(s), read with weights_only", "")
    for objection in plan_objections(plans):
        yield CheckFinding("error", f"{PLANS}: {objection}", "only models of an unchanged nnU-Net v2 are run")
    if missing := [rule.label for rule in sidecar.segments if rule.channel not in names]:
        yield CheckFinding("error", f"segments {', '.join(missing)} name labels that {DATASET} lacks", "correct the channels")
    if len(channels) > 1 and len(sidecar.series) != len(channels):
        yield CheckFinding(
            "error", f"the model reads {len(channels)} images ({', '.join(channels)})", "give [[inputs]] one role for each"
        )
    if find_spec("nnunetv2") is None:
        yield CheckFinding("error", "nnunetv2 is not installed, and this model is run by it", INSTALL)


def labels_of(dataset: Mapping[str, Any]) -> dict[int, str]:
    """Label value → name, without background. A region (several values) goes by the value that nnU-Net writes for it."""
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise PipelineError(f"{DATASET} names no labels", "copy the dataset.json of the training")
    order = dataset.get("regions_class_order")
    names = {}
    regions = [name for name, value in labels.items() if value not in (_BACKGROUND, [_BACKGROUND]) and name != "ignore"]
    if isinstance(order, list) and any(isinstance(value, list) for value in labels.values()):
        return {int(written): str(name) for name, written in zip(regions, order, strict=False)}
    for name in regions:
        if not isinstance(labels[name], int):
            raise PipelineError(f"{DATASET}: label {name!r} is no number", "copy the dataset.json of the training")
        names[labels[name]] = str(name)
    return names


def channels_of(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the images that make one input, in the network's order."""
    named = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(named, Mapping) or not named:
        raise PipelineError(f"{DATASET} names no channels", "copy the dataset.json of the training")
    return tuple(str(named[key]) for key in sorted(named, key=int))


def draft_nnunet(folder: Path, name: str, modality: str | None) -> Draft:
    """A `pipeline.toml` from dataset.json. Raises PipelineError where it says too little."""
    dataset = read_config(folder / DATASET)
    channels = channels_of(dataset)
    first = channels[0].upper().strip()
    said = modality or _DEFAULT_MODALITIES.get(first) or "MR"
    doubts = [f"dataset.json says {channels[0]!r}; the modality {said} was taken"] if not modality and first != said else []
    doubts.append(
        'the arrays were taken to run right-left, front-back, feet-head ("LPS"); a data set of NIfTI files may be "RAS"'
    )
    lines = [
        "# Drafted from dataset.json by `dicomnode pipelines add`. Read it: nnU-Net knows no codes, limits, intended use.",
        f"name = {json.dumps(name)}",
        'version = "0.0.0"',
        f"title = {json.dumps(str(dataset.get('name') or name)[:64], ensure_ascii=False)}",
        'task = "segmentation"',
        'postprocess = "nnunet"',
        'manufacturer = "unknown"',
        f"intended_use = {json.dumps(str(dataset.get('description') or _NOT_STATED)[:200], ensure_ascii=False)}",
        "demonstration = true",
        "",
        "[input]",
        f"modality = {json.dumps(said)}",
        f"unit = {json.dumps('[hnsf' + chr(39) + 'U]' if said == 'CT' else '')}",
        "",
        "[nnunet]",
        'axes = "LPS"',
        "",
    ]
    for channel in channels if len(channels) > 1 else ():
        pattern = json.dumps(f"*{channel.lower()}*", ensure_ascii=False)
        lines += [
            "[[inputs]]",
            f"name = {json.dumps(channel, ensure_ascii=False)}",
            f"match = {{ SeriesDescription = {pattern} }}",
            "",
        ]
    for value, label in sorted(labels_of(dataset).items()):
        lines += ["[[segments]]", f"label = {json.dumps(label[:64], ensure_ascii=False)}", f"channel = {value}"]
    return Draft("\n".join(lines) + "\n", tuple(doubts))
