"""A `pipeline.toml` for a bundle that has none, from what its metadata.json says of inputs and outputs.

A draft always says that the model is a demonstration; whoever knows better writes so. What the metadata leave open is guessed
only where a wrong guess ends in a refusal, and is named as a doubt.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.catalogue import inference_file, read_metadata
from dicomnode.engines.digest import file_digest
from dicomnode.engines.safety import read_config

_MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PET": "PT", "PT": "PT", "US": "US", "ULTRASOUND": "US", "MG": "MG"}
_MODALITIES |= {"MAMMOGRAPHY": "MG", "XR": "DX", "X-RAY": "DX", "XRAY": "DX", "CR": "CR", "DX": "DX"}
_BACKGROUND = re.compile(r"back ?ground|other|none|void", re.I)
_WEIGHTS = ("model.safetensors", "model.pt", "model.pth", "model.ts", "model.pt2", "model.onnx")
_NOT_STATED = "Not stated by the bundle. Not for clinical use."


@dataclass(frozen=True, slots=True)
class Draft:
    """`text` of a pipeline.toml, and what in it was guessed."""

    text: str
    doubts: tuple[str, ...]


def draft_sidecar(folder: Path, *, modality: str | None = None, name: str | None = None) -> Draft:
    """Raises PipelineError where the bundle says too little, or holds no weights."""
    metadata, config = read_metadata(folder), read_config(inference_file(folder))
    formats = metadata.get("network_data_format", {})
    given, made = _first(formats.get("inputs")), _first(formats.get("outputs"))
    doubts: list[str] = []
    task = _task(made, config)
    modality = modality or _modality(given)
    is_image = _is_image(given, config)
    lines = [
        "# Drafted from metadata.json by `dicomnode pipelines add`. Read it: a bundle cannot know codes, limits, intended use.",
        f"name = {_quoted(name or pipeline_name(folder.name))}",
        f"version = {_quoted(_version(metadata, doubts))}",
        f"title = {_quoted(str(metadata.get('name') or metadata.get('task') or folder.name)[:64])}",
        f'task = "{task}"',
        'postprocess = "bundle"',
        f"manufacturer = {_quoted(_manufacturer(metadata))}",
        f"intended_use = {_quoted(str(metadata.get('intended_use') or _NOT_STATED))}",
        "demonstration = true",
        "",
        "[input]",
        f"modality = {_quoted(modality)}",
        f'kind = "{"image" if is_image else "volume"}"',
        f"unit = {_quoted('[hnsf' + chr(39) + 'U]' if modality == 'CT' else '')}",
        "",
        "[bundle]",
        *_bundle_lines(folder, given, config, is_image=is_image),
        "",
        *_output_lines(task, made, config, metadata, doubts),
        "",
        "[fast]",
        "own_resampling = true",
    ]
    return Draft("\n".join(lines) + "\n", tuple(doubts))


def _first(formats: Any) -> Mapping[str, Any]:
    """The description of the first input or output; bundles have one of each but for detectors."""
    values = [value for value in formats.values() if isinstance(value, Mapping)] if isinstance(formats, Mapping) else []
    return values[0] if values else {}


def _task(made: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    said = f"{made.get('type', '')} {made.get('format', '')}".lower()
    written = json.dumps(config)
    if "RetinaNet" in written or "object" in said or "box" in said:
        return "detection"
    if "class" in said or "probabilit" in said or (made.get("type") == "vector"):
        return "classification"
    return "segmentation"


def _modality(given: Mapping[str, Any]) -> str:
    said = str(given.get("modality", "")).strip().upper()
    if said not in _MODALITIES:
        raise PipelineError(
            f"metadata.json names {said or 'no modality'}, no modality of DICOM" if said else "metadata.json names no modality",
            "say --modality CT (or another Modality value, PS3.3 C.7.3.1.1.1)",
        )
    return _MODALITIES[said]


def _is_image(given: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    shape = given.get("spatial_shape")
    return isinstance(shape, list) and len(shape) == 2 and "SliceInferer" not in json.dumps(config.get("inferer", ""))


def pipeline_name(called: str) -> str:
    """`called` as a pipeline's name: small letters, digits, underscores, 32 at most."""
    words = re.sub(r"[^a-z0-9]+", "_", called.lower()).strip("_")
    name = words if re.match(r"[a-z]", words) else f"bundle_{words}"
    return name[:32].rstrip("_")


def _version(metadata: Mapping[str, Any], doubts: list[str]) -> str:
    version = str(metadata.get("version", ""))
    if re.fullmatch(r"\d+\.\d+\.\d+([.+-][0-9A-Za-z.-]+)?", version):
        return version
    doubts.append(f"metadata.json gives the version {version!r}; 0.0.0 stands for it")
    return "0.0.0"


def _manufacturer(metadata: Mapping[str, Any]) -> str:
    authors = metadata.get("authors") or metadata.get("copyright") or "unknown"
    return ", ".join(map(str, authors))[:64] if isinstance(authors, list) else str(authors)[:64]


def _bundle_lines(folder: Path, given: Mapping[str, Any], config: Mapping[str, Any], *, is_image: bool) -> list[str]:
    found = next((name for name in _WEIGHTS if (folder / "models" / name).is_file()), None)
    if found is None:
        hint = " (large_files.yml says where they are)" if list(folder.glob("large_files.*")) else ""
        raise PipelineError(f"{folder} holds no weights in models/{hint}", f"put one of {', '.join(_WEIGHTS)} there")
    lines = [f'weights = "models/{found}"', f'weights_sha256 = "{file_digest(folder / "models" / found)}"']
    key = config.get("image_key")
    if isinstance(key, str) and key.isidentifier():
        lines.append(f'image_key = "{key}"')
    channels = int(given.get("num_channels") or 1)
    if is_image and channels > 1:
        lines.append(f"image_channels = {channels}")
    elif channels > 1:
        names = [str(one) for one in _channels(given).values()] or [f"series {number + 1}" for number in range(channels)]
        lines.append(f"series = {json.dumps(names, ensure_ascii=False)}")
    return lines


def _output_lines(
    task: str, made: Mapping[str, Any], config: Mapping[str, Any], metadata: Mapping[str, Any], doubts: list[str]
) -> list[str]:
    channels = _channels(made)
    if not channels:
        channels = {number: f"Channel {number}" for number in range(_out_channels(made, config))}
        doubts.append("metadata.json has no channel_def: the outputs are called by their numbers")
    if task == "detection":
        labels = [label for label in channels.values() if not _BACKGROUND.fullmatch(label)] or ["Finding"]
        return ["[boxes]", f"labels = {json.dumps(labels, ensure_ascii=False)}"]
    if task == "classification":
        name = str(metadata.get("task") or "classification")[:64]
        wanted = channels
        lines = ["[statement]", f"name = {_quoted(name)}", f"exclusive = {str('sigmoid' not in json.dumps(config)).lower()}"]
    else:
        wanted = {number: label for number, label in channels.items() if not _BACKGROUND.fullmatch(label)}
        wanted = (
            wanted if len(channels) == 1 or "sigmoid" in json.dumps(config) else {n: la for n, la in wanted.items() if n > 0}
        )
        lines = []
    table = "classes" if task == "classification" else "segments"
    for number, label in sorted(wanted.items()):
        lines += [f"[[{table}]]", f"label = {_quoted(label[:64])}", f"channel = {number}"]
    return lines


def _channels(described: Mapping[str, Any]) -> dict[int, str]:
    """channel_def by number. Raises PipelineError for one that is no table of numbers."""
    names = described.get("channel_def") or {}
    try:
        return {int(number): str(name) for number, name in names.items()}
    except (AttributeError, ValueError, TypeError) as error:
        raise PipelineError("channel_def in metadata.json does not name channels by number", "correct metadata.json") from error


def _out_channels(made: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    network = config.get("network_def")
    said = network.get("out_channels") if isinstance(network, Mapping) else None
    count = said if isinstance(said, int) else made.get("num_channels")
    return count if isinstance(count, int) and count > 0 else 2


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False)
