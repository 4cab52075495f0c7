"""What keeps a folder from being a pipeline: everything that can be said without loading the model, torch or MONAI."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.catalogue import PROGRAM_SUFFIXES, inference_file, read_metadata, verified_weights
from dicomnode.engines.coding import PRIVATE_SCHEME
from dicomnode.engines.digest import bundle_digest
from dicomnode.engines.drafting import draft_sidecar
from dicomnode.engines.findings import CheckFinding
from dicomnode.engines.kinds import refuse_kind
from dicomnode.engines.nnunet import nnunet_findings
from dicomnode.engines.safety import OWN_WAY_KEYS, WANTED_KEYS, examine, from_memory, read_config
from dicomnode.engines.sidecar import SIDECAR_NAME, Sidecar, parsed_sidecar, read_sidecar

_OPTIONAL_KEYS = frozenset({"inferer", "postprocessing"})  # of a bundle that is run its own way


def check_pipeline(folder: Path, *, trusted_digests: frozenset[str] = frozenset()) -> tuple[CheckFinding, ...]:
    """Everything that can be said without loading the model; an empty or error-free answer means that it can be tried.

    A MONAI bundle without `pipeline.toml` is judged by the one that `pipelines add` would write for it.
    """
    try:
        sidecar, findings = _sidecar(folder)
        trusted = (folder / SIDECAR_NAME).is_file() and bundle_digest(folder) in trusted_digests
    except PipelineError as error:
        return (CheckFinding("error", error.what, error.remedy),)
    if sidecar.postprocess == "nnunet":
        return (*findings, *nnunet_findings(folder, sidecar), *_code_findings(sidecar))
    if sidecar.postprocess == "classical":  # statements from plain arrays: there is no configuration to look into
        weights = _weights_findings(folder, sidecar, trusted=trusted) if sidecar.heads else ()
        return (*findings, *weights, *_metadata_findings(folder, sidecar))
    return (*findings, *_bundle_findings(folder, sidecar, trusted=trusted), *_metadata_findings(folder, sidecar))


def _sidecar(folder: Path) -> tuple[Sidecar, tuple[CheckFinding, ...]]:
    if (folder / SIDECAR_NAME).is_file() or not (folder / "configs" / "metadata.json").is_file():
        return read_sidecar(folder), ()
    draft = draft_sidecar(folder)
    notes = [
        CheckFinding(
            "warning", f"it has no {SIDECAR_NAME}", "dicomnode pipelines add writes one from metadata.json; read it before use"
        ),
        *(CheckFinding("warning", doubt, f"correct it in {SIDECAR_NAME}") for doubt in draft.doubts),
    ]
    return parsed_sidecar(draft.text, folder / SIDECAR_NAME), tuple(notes)


def _bundle_findings(folder: Path, sidecar: Sidecar, *, trusted: bool) -> Iterator[CheckFinding]:
    try:
        config = read_config(inference_file(folder))
    except PipelineError as error:
        yield CheckFinding("error", error.what, error.remedy)
    else:
        yield from _config_findings(folder, config, sidecar, trusted=trusted)
    yield from _weights_findings(folder, sidecar, trusted=trusted)
    yield from _code_findings(sidecar)


def _config_findings(folder: Path, config: dict[str, Any], sidecar: Sidecar, *, trusted: bool) -> Iterator[CheckFinding]:
    if (why := refuse_kind(config)) is not None:
        yield CheckFinding("error", why, "choose a bundle that finds something in a DICOM series")
    own_way = sidecar.postprocess == "bundle"
    keys = OWN_WAY_KEYS if own_way else WANTED_KEYS
    brings_network = Path(sidecar.bundle.weights).suffix in (*PROGRAM_SUFFIXES, ".onnx")
    for key in keys:
        if key in config or (own_way and key in _OPTIONAL_KEYS) or (brings_network and key == "network_def"):
            continue
        yield CheckFinding("error", f"configs/inference.json has no {key!r}", "add it, as MONAI's bundle specification says")
    violations = examine(from_memory(config) if own_way else config, keys).violations
    for violation in violations:
        yield CheckFinding(
            "info" if trusted else "error",
            f"{violation.where}: {violation.what}",
            "" if trusted else f"rewrite it, or trust the bundle by its digest{_named_digest(folder)}",
        )
    if trusted and violations:
        yield CheckFinding("info", "the settings trust this bundle's digest: its own code runs")


def _named_digest(folder: Path) -> str:
    """Without a sidecar the digest is not yet the one that the added pipeline will have."""
    return f" {bundle_digest(folder)}" if (folder / SIDECAR_NAME).is_file() else ", which dicomnode pipelines add names"


def _weights_findings(folder: Path, sidecar: Sidecar, *, trusted: bool) -> Iterator[CheckFinding]:
    try:
        weights = verified_weights(folder, sidecar)
    except PipelineError as error:
        yield CheckFinding("error", error.what, error.remedy)
        return
    if weights.suffix in PROGRAM_SUFFIXES:
        yield CheckFinding(
            "info" if trusted else "error",
            f"{weights.name} is a program, read only for a trusted bundle",
            "store the weights as safetensors beside a network_def, or trust the bundle by its digest" + _named_digest(folder),
        )
    elif weights.suffix == ".onnx":
        yield CheckFinding("info", f"{weights.name} is run by onnxruntime", 'install "dicomnode-ai[onnx]"')
    elif weights.suffix != ".safetensors":
        yield CheckFinding("warning", f"{weights.name} is a pickle", "store the weights as safetensors")
    elif (wrong := _unreadable_tensors(weights)) is not None:
        yield CheckFinding("error", f"{weights.name} holds no tensors: {wrong}", "store the weights as safetensors")
    if sidecar.bundle.weights_sha256 is None and "weights_sha256" not in read_metadata(folder):
        yield CheckFinding(
            "warning", "no SHA-256 of the weights is recorded", f"add weights_sha256 to [bundle] in {SIDECAR_NAME}"
        )


def _unreadable_tensors(weights: Path) -> str | None:
    """What is wrong with the header of a safetensors file, which says what the whole file must hold; None if nothing is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            return None if list(tensors.keys()) else "it is empty"
    except (SafetensorError, OSError) as error:
        return str(error)


def _code_findings(sidecar: Sidecar) -> Iterator[CheckFinding]:
    names = [rule.label for rule in sidecar.segments if rule.type.scheme == PRIVATE_SCHEME]
    names += [rule.label for rule in sidecar.classes if rule.code.scheme == PRIVATE_SCHEME]
    if names:
        yield CheckFinding(
            "warning",
            f"{', '.join(names)}: no standard code is known for the name, a private one ({PRIVATE_SCHEME}) stands for it",
            f"give category and type (SNOMED CT) in {SIDECAR_NAME}",
        )


def _metadata_findings(folder: Path, sidecar: Sidecar) -> Iterator[CheckFinding]:
    try:
        metadata = read_metadata(folder)
    except PipelineError as error:
        yield CheckFinding("error", error.what, error.remedy)
        return
    if not metadata:
        yield CheckFinding("warning", "configs/metadata.json is missing", "add it: it says what the model was trained on")
        return
    if metadata.get("version") not in (None, sidecar.version):
        yield CheckFinding(
            "warning", f"metadata.json says version {metadata['version']}, {SIDECAR_NAME} {sidecar.version}", "make them equal"
        )
    yield from _package_findings(metadata)
    channels = metadata.get("network_data_format", {}).get("outputs", {}).get("pred", {}).get("channel_def")
    # A bundle's own postprocessing may combine channels into labels of other numbers.
    if channels and sidecar.postprocess != "bundle":
        wanted = {rule.channel for rule in sidecar.segments} | ({sidecar.lesions.channel} if sidecar.lesions else set())
        if missing := sorted(channel for channel in wanted if str(channel) not in channels):
            yield CheckFinding(
                "error",
                f"{SIDECAR_NAME} uses channels {missing} that channel_def does not have",
                "correct the channel numbers",
            )


def _package_findings(metadata: dict[str, Any]) -> Iterator[CheckFinding]:
    """Libraries that the bundle names and that are not there: some it needs only for training, so they keep nothing back."""
    for key in ("required_packages_version", "optional_packages_version"):
        named = metadata.get(key)
        for name in sorted(named) if isinstance(named, dict) else ():
            try:
                version(str(name))
            except PackageNotFoundError:
                yield CheckFinding(
                    "info", f"metadata.json names {name}, which is not installed", "install it if the bundle fails"
                )
