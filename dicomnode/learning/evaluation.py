"""How good a bundle is, through the path that is shipped: imaging loads, engines runs, the Findings are measured.

Phantoms come from seeds that no training draws. A real series is only worth a figure from a model that did not see it:
`evaluate` takes such models from `folds`.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Refusal, Volume, read_only
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.engines.chest.body import body_mask
from dicomnode.learning.metrics import Target, classification_figures, dice, match
from dicomnode.learning.real_data import RealSeries, available, load_volume
from dicomnode.learning.reference import reference_lungs
from dicomnode.learning.reporting import Progress, silent
from dicomnode.phantom import Phantom, ThoraxSpec, phantom_uid, thorax
from dicomnode.phantom.spec import Disease

FIRST_UNSEEN_SEED = 900_000_000  # training draws below it
_REAL_HIT_MM = 12.0


def evaluate(
    bundle_dir: Path,
    *,
    phantoms: int = 40,
    seed: int = FIRST_UNSEEN_SEED,
    real_data: Path | None = None,
    folds: Mapping[str, Path] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Figures as they stand in metadata.json: {"phantom": {...}, "other_regions": {...}, "real": {series: {...}}}.

    folds: real series → weights of a model that did not see it; real chest series without one are left out. real_data also
    gives what must be refused.
    """
    pipeline = load_pipeline(bundle_dir, device="cpu")
    figures: dict[str, Any] = {"phantom": phantom_figures(pipeline, phantoms, seed, progress)}
    figures["other_regions"] = _refusals(pipeline, seed, real_data)
    if real_data is not None and folds:
        figures["real"] = {
            series.folder: real_figures(_with_weights(bundle_dir, folds[series.folder]), load_volume(real_data, series), series)
            for series in available(real_data)
            if series.folder in folds
        }
    return figures


@dataclass(frozen=True, slots=True)
class _Scan:
    """One phantom's outcome."""

    lung_dice: float
    lesion_dice: float | None
    targets: tuple[float, ...]  # diameters, mm
    found: tuple[bool, ...]
    false_positives: int
    present: bool
    probability: float
    threshold: float


def phantom_figures(pipeline: Pipeline, count: int, seed: int, progress: Progress = silent) -> dict[str, Any]:
    """Figures on `count` unseen chest phantoms of varied disease, dose, kernel, contrast and slice spacing (1-5 mm)."""
    scans: list[_Scan] = []
    refused: list[str] = []
    for number in range(count):
        progress("phantoms", number / count)
        phantom = thorax(evaluation_spec(seed + number))
        found = pipeline.run(volume_of(phantom))
        if isinstance(found, Refusal):
            refused.append(str(found.code))
        else:
            scans.append(_measure(phantom, found))
    return {"scans": count, "refused": refused, **_summary(scans)}


def evaluation_spec(seed: int) -> ThoraxSpec:
    """Whole chests on a scanner's own grid; a third of the patients have no nodule."""
    rng = np.random.default_rng((seed, 31))
    spacing = float(rng.choice([1.5, 2.5, 2.5, 5.0]))
    diseases: list[Disease] = ["none", "emphysema", "effusion", "fibrosis", "consolidation", "ground_glass"]
    size = 384
    return ThoraxSpec(
        seed=seed,
        slices=round(255 / spacing),
        size=size,
        slice_spacing_mm=spacing,
        pixel_spacing_mm=float(rng.uniform(340, 410)) / size,
        noise_hu=float(rng.uniform(8, 45)),
        kernel="sharp" if rng.random() < 0.4 else "soft",
        disease=diseases[int(rng.choice(6, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))],
        outside_circle_hu=-3024 if rng.random() < 0.3 else None,
    )


def volume_of(phantom: Phantom) -> Volume:
    """The phantom as imaging would load it."""
    instances = [phantom_uid("evaluation", phantom.spec, index) for index in range(len(phantom.hu))]
    return Volume(
        pixels=read_only(phantom.hu.copy()),
        unit="[hnsf'U]",
        affine=phantom.affine,
        frame_of_reference_uid=phantom_uid("frame", phantom.spec),
        frames=tuple(FrameRef(uid, "1.2.840.10008.5.1.4.1.1.2") for uid in instances),
        headers=HeaderSummary(modality="CT", body_part_examined="CHEST", slice_thickness_mm=phantom.spec.slice_spacing_mm),
        study_instance_uid=phantom_uid("study", phantom.spec),
        series_instance_uid=phantom_uid("series", phantom.spec),
    )


def lung_mask(findings: Findings) -> NDArray[np.bool_]:
    """Both lungs on the source grid."""
    return next(label_map.labels for label_map in findings.label_maps if label_map.name == "lungs") > 0


def lesion_mask(findings: Findings) -> NDArray[np.bool_]:
    """All reported lesions on the source grid."""
    maps = [label_map.labels > 0 for label_map in findings.label_maps if label_map.name != "lungs"]
    return np.logical_or.reduce(maps) if maps else np.zeros(findings.label_maps[0].labels.shape, dtype=bool)


def _measure(phantom: Phantom, findings: Findings) -> _Scan:
    targets = [Target(nodule.center_mm, nodule.diameter_mm) for nodule in phantom.nodules]
    matching = match(targets, [lesion.center_mm for lesion in findings.lesions])
    truth = phantom.labels >= 3
    statement = findings.classifications[0]
    return _Scan(
        lung_dice=dice(lung_mask(findings), phantom.labels > 0),
        lesion_dice=dice(lesion_mask(findings), truth) if targets else None,
        targets=tuple(target.diameter_mm for target in targets),
        found=matching.found,
        false_positives=matching.false_positives,
        present=bool(targets),
        probability=statement.probability,
        threshold=statement.threshold,
    )


def _summary(scans: list[_Scan]) -> dict[str, Any]:
    if not scans:
        return {}
    diameters = np.array([diameter for scan in scans for diameter in scan.targets])
    found = np.array([hit for scan in scans for hit in scan.found], dtype=bool)
    lesion_dice = [scan.lesion_dice for scan in scans if scan.lesion_dice is not None]
    statement = classification_figures(
        [scan.present for scan in scans], [scan.probability for scan in scans], scans[0].threshold
    )
    return {
        "lung_dice": _rounded(np.mean([scan.lung_dice for scan in scans])),
        "lung_dice_lowest": _rounded(min(scan.lung_dice for scan in scans)),
        "lesion_dice": _rounded(np.mean(lesion_dice)) if lesion_dice else None,
        "nodules": len(diameters),
        "lesion_sensitivity": _rounded(found.mean()) if len(found) else None,
        "lesion_sensitivity_from_6_mm": _rounded(found[diameters >= 6].mean()) if (diameters >= 6).any() else None,
        "false_positives_per_scan": _rounded(np.mean([scan.false_positives for scan in scans])),
        "scans_with_nodules": sum(scan.present for scan in scans),
        "classification": {
            name: _rounded(getattr(statement, name)) for name in ("accuracy", "recall", "precision", "f1", "auc")
        },
        "threshold": scans[0].threshold,
    }


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)


def real_figures(pipeline: Pipeline, volume: Volume | Refusal, series: RealSeries) -> dict[str, Any]:
    """One real chest series: Dice to reference lungs, known lesions found, other lesions reported."""
    found = volume if isinstance(volume, Refusal) else pipeline.run(volume)
    if isinstance(found, Refusal) or isinstance(volume, Refusal):
        return {"refused": str(found.code) if isinstance(found, Refusal) else ""}
    reference = reference_lungs(volume.pixels.astype(np.int16), body_mask(volume.pixels, volume.spacing_mm))
    known = [Target(finding.center_mm, 2 * _REAL_HIT_MM) for finding in series.findings if finding.label]
    ignored = [finding for finding in series.findings if not finding.label]
    centers = [
        lesion.center_mm
        for lesion in found.lesions
        if not any(np.linalg.norm(np.subtract(lesion.center_mm, area.center_mm)) < area.radius_mm for area in ignored)
    ]
    matching = match(known, centers, slack_mm=0.0)
    return {
        "lung_dice": _rounded(dice(lung_mask(found), reference)),
        "known_lesions": len(known),
        "known_lesions_found": sum(matching.found),
        "other_lesions": matching.false_positives,
        "lesions_in_unmarked_tumour": len(found.lesions) - len(centers),
        "probability": _rounded(found.classifications[0].probability),
        "seconds": _rounded(sum(found.timings_s.values())),
    }


def _refusals(pipeline: Pipeline, seed: int, real_data: Path | None) -> dict[str, str]:
    """What becomes of abdomens and heads: the refusal's code, or "accepted"."""
    result = {}
    for region in ("abdomen", "head"):
        spec = ThoraxSpec(seed=seed, slices=60, size=256, slice_spacing_mm=3.0, pixel_spacing_mm=1.4, region=region)
        result[f"phantom {region}"] = _outcome(pipeline, volume_of(thorax(spec)))
    for series in available(real_data):
        if not series.is_chest and real_data is not None:
            result[series.folder] = _outcome(pipeline, load_volume(real_data, series))
    return result


def _outcome(pipeline: Pipeline, volume: Volume | Refusal) -> str:
    found = volume if isinstance(volume, Refusal) else pipeline.run(volume)
    return str(found.code) if isinstance(found, Refusal) else "accepted"


def _with_weights(bundle_dir: Path, weights: Path) -> Pipeline:
    """The bundle with other weights, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return load_pipeline(copied_with(bundle_dir, weights, Path(folder)), device="cpu")


def copied_with(bundle_dir: Path, weights: Path | None, folder: Path) -> Path:
    """A copy of the bundle in `folder`, with `weights` in place of its own; its pinned digest is left out."""
    copy = folder / bundle_dir.name
    shutil.copytree(bundle_dir, copy)
    if weights is not None:
        shutil.copyfile(weights, copy / "models" / "model.safetensors")
        metadata = copy / "configs" / "metadata.json"
        facts = json.loads(metadata.read_text())
        facts.pop("weights_sha256", None)
        metadata.write_text(json.dumps(facts))
    return copy
