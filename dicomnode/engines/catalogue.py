"""Which pipelines there are and whether each could run: files are read and hashed, torch is never loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import ModelIdentity
from dicomnode.engines.digest import bundle_digest, file_digest
from dicomnode.engines.safety import read_config
from dicomnode.engines.sidecar import SIDECAR_NAME, Sidecar, read_sidecar

_INFERENCE_NAMES = ("inference.json", "inference.yaml", "inference.yml")
PROVENANCE_NAME = "provenance.json"
PROGRAM_SUFFIXES = (".ts", ".torchscript", ".pt2")  # TorchScript and torch.export archives: read only where trusted
_WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx", *PROGRAM_SUFFIXES)


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    """One pipeline folder. `digest` is the bundle's SHA-256; `metrics` is "eval_metrics" of its metadata.json."""

    name: str
    version: str
    title: str
    task: str
    digest: str
    demonstration: bool
    modality: str
    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    manufacturer: str = ""
    intended_use: str = ""
    card: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)  # as `pipelines add` noted it; {} for what it did not bring

    @property
    def identity(self) -> ModelIdentity:
        """Whose word a result of this pipeline is, also where the model was never loaded."""
        return ModelIdentity(
            name=self.name,
            version=self.version,
            digest=self.digest,
            manufacturer=self.manufacturer,
            intended_use=self.intended_use,
            demonstration=self.demonstration,
            card=self.card,
        )


def find_pipelines(folders: Sequence[Path]) -> tuple[PipelineInfo, ...]:
    """The pipelines directly below `folders`, by name; of two with one name the one in the earlier folder wins.

    A folder whose `pipeline.toml` cannot be read is left out here; `check_pipeline` says why.
    """
    found: dict[str, PipelineInfo] = {}
    for folder in folders:
        for sidecar_path in sorted(folder.glob(f"*/{SIDECAR_NAME}")) if folder.is_dir() else ():
            try:
                info = describe(sidecar_path.parent)
            except PipelineError:
                continue
            found.setdefault(info.name, info)
    return tuple(sorted(found.values(), key=lambda info: info.name))


def describe(folder: Path) -> PipelineInfo:
    """One pipeline's facts. Raises PipelineError where `pipeline.toml` or the metadata cannot be read."""
    sidecar = read_sidecar(folder)
    metadata = read_metadata(folder)
    return PipelineInfo(
        name=sidecar.name,
        version=sidecar.version,
        title=sidecar.title,
        task=sidecar.task,
        digest=bundle_digest(folder),
        demonstration=sidecar.demonstration,
        modality=sidecar.input.modality,
        folder=folder,
        metrics=dict(metadata.get("eval_metrics", {})),
        manufacturer=sidecar.manufacturer,
        intended_use=sidecar.intended_use,
        card=str(metadata.get("description", "")),
        provenance=_provenance(folder),
    )


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / PROVENANCE_NAME
    try:
        return read_config(path) if path.is_file() else {}
    except PipelineError:
        return {}  # a note, not a part of the model


def read_metadata(folder: Path) -> dict[str, Any]:
    """`configs/metadata.json`, or {} where the bundle has none."""
    path = folder / "configs" / "metadata.json"
    return read_config(path) if path.is_file() else {}


def inference_file(folder: Path) -> Path:
    """The bundle's inference configuration. Raises PipelineError where there is none."""
    for name in _INFERENCE_NAMES:
        if (folder / "configs" / name).is_file():
            return folder / "configs" / name
    raise PipelineError(f"{folder} has no configs/inference.json", "a MONAI bundle keeps its inference configuration there")


def verified_weights(folder: Path, sidecar: Sidecar) -> Path:
    """The weights file, its SHA-256 compared with the one that `pipeline.toml` or metadata.json names. Raises PipelineError."""
    path = folder / sidecar.bundle.weights
    if path.suffix not in _WEIGHTS_SUFFIXES:
        raise PipelineError(f"{path} is neither safetensors nor a checkpoint", f"give one of {', '.join(_WEIGHTS_SUFFIXES)}")
    if not path.is_file():
        raise PipelineError(f"the weights {path} are missing", "train the pipeline or copy its weights there")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PipelineError(f"the weights {path} lie outside the bundle", "copy them into the bundle's models folder")
    expected = sidecar.bundle.weights_sha256 or read_metadata(folder).get("weights_sha256")
    if expected is not None and file_digest(path) != expected:
        raise PipelineError(
            f"the weights {path} are not the ones that the bundle names (SHA-256 {str(expected)[:12]}… expected)",
            "get the bundle again, or train it again, which renews the SHA-256",
        )
    return path
