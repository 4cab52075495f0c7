"""Figures into the bundle: metadata.json and the model card are written from what was measured, never by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

from dicomnode.learning.training import WEIGHTS

_BEGIN, _END = "<!-- figures: written by dicomnode.learning.publish -->", "<!-- end of figures -->"


def publish(bundle_dir: Path, figures: dict[str, Any], training: dict[str, Any]) -> None:
    """Write `figures` (of `evaluate`), what the training was, and the weights' SHA-256 into the bundle.

    metadata.json: "metrics" (a flat summary), "eval_metrics" (all), "training", "weights_sha256". docs/README.md: the tables
    between its two marks; a card without marks is left as it is.
    """
    path = bundle_dir / "configs" / "metadata.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["metrics"] = summary(figures)
    facts["eval_metrics"] = figures
    facts["training"] = training
    facts["weights_sha256"] = hashlib.sha256((bundle_dir / WEIGHTS).read_bytes()).hexdigest()
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    card = bundle_dir / "docs" / "README.md"
    text = card.read_text(encoding="utf-8")
    if _BEGIN in text and _END in text:
        before, after = text.split(_BEGIN)[0], text.split(_END)[1]
        card.write_text(f"{before}{_BEGIN}\n{tables(figures)}{_END}{after}", encoding="utf-8")


def summary(figures: dict[str, Any]) -> dict[str, float | None]:
    """The few figures that a list of pipelines shows."""
    phantom = figures["phantom"]
    flat = {
        "phantom_lung_dice": phantom["lung_dice"],
        "phantom_lesion_dice": phantom["lesion_dice"],
        "phantom_lesion_sensitivity": phantom["lesion_sensitivity"],
        "phantom_false_positives_per_scan": phantom["false_positives_per_scan"],
        "phantom_auc": phantom["classification"]["auc"],
    }
    scans = [scan for scan in figures.get("real", {}).values() if "lung_dice" in scan]
    if scans:
        flat["real_unseen_lung_dice_lowest"] = min(scan["lung_dice"] for scan in scans)
        flat["real_unseen_known_lesions_found"] = sum(scan["known_lesions_found"] for scan in scans)
        flat["real_unseen_known_lesions"] = sum(scan["known_lesions"] for scan in scans)
        flat["real_unseen_other_lesions_most"] = max(scan["other_lesions"] for scan in scans)
    return flat


def tables(figures: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    phantom = figures["phantom"]
    rows = [
        f"On {phantom['scans']} synthetic chests never used in training ({phantom['nodules']} nodules of 6 mm and more,",
        f"{phantom['scans_with_nodules']} scans with a nodule):\n",
        "| figure | value |",
        "| --- | --- |",
        f"| Dice of the lungs, mean (lowest) | {phantom['lung_dice']} ({phantom['lung_dice_lowest']}) |",
        f"| Dice of lesions, scans with a nodule | {phantom['lesion_dice']} |",
        f"| sensitivity for nodules | {phantom['lesion_sensitivity']} |",
        f"| false positives per scan | {phantom['false_positives_per_scan']} |",
        *(f"| classification, {name} | {value} |" for name, value in phantom["classification"].items()),
    ]
    if real := figures.get("real"):
        rows += [
            "\nOn real series, each by a model of the same recipe that did not see it (reference lungs from thresholds):\n",
            "| series | Dice of the lungs | known lesions found | other lesions reported | in unmarked tumour | probability |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_real_row(name, scan) for name, scan in real.items()),
        ]
    rows += ["\nWhat is no chest:\n", "| input | outcome |", "| --- | --- |"]
    rows += [f"| {name} | {outcome} |" for name, outcome in figures["other_regions"].items()]
    return "\n".join(rows) + "\n"


def _real_row(name: str, scan: dict[str, Any]) -> str:
    if "lung_dice" not in scan:
        return f"| {name} | refused: {scan['refused']} | | | | |"
    return (
        f"| {name} | {scan['lung_dice']} | {scan['known_lesions_found']} of {scan['known_lesions']} "
        f"| {scan['other_lesions']} | {scan['lesions_in_unmarked_tumour']} | {scan['probability']} |"
    )
