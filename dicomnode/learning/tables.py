"""A model author's own cases: `configs/train.json`, the table of cases that it names, and what comes of a training."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PipelineError, UsageError
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.engines.digest import file_digest
from dicomnode.engines.safety import read_config


@dataclass(frozen=True, slots=True)
class ClassicalReport:
    """What came of a training: the new bundle, its weights, and the figures on what each model did not see."""

    bundle: Path
    weights: Path
    weights_sha256: str
    examples: int
    patients: int
    metrics: dict[str, Any]
    seconds: float


def read_plan(folder: Path) -> dict[str, Any]:
    """`configs/train.json`. Raises PipelineError."""
    path = folder / "configs" / "train.json"
    if not path.is_file():
        raise PipelineError(f"{folder} has no configs/train.json", "docs/models.md says what it holds")
    return read_config(path)


def read_table(folder: Path, plan: Mapping[str, Any], columns: str) -> tuple[Path, list[dict[str, str]]]:
    """Where the table of cases is, to which its paths are relative, and its lines. Raises UsageError."""
    table = (folder / "configs" / str(plan.get("cases", "cases.csv"))).resolve()
    if not table.is_file():
        raise UsageError(f"the table {table} does not exist", f"write it: {columns}")
    with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin UTF-8 with a mark
        return table, list(csv.DictReader(file, restval=""))


def load_image(path: Path) -> Volume | Image2D:
    """The only series in a folder (or file), as the node would load it. Raises UsageError."""
    from dicomnode import imaging

    series = imaging.scan([path]).series
    if len(series) != 1:
        raise UsageError(f"{path} holds {len(series)} series", "name a folder of one series in each line of the table")
    loaded = imaging.load(series[0])
    if isinstance(loaded, Refusal):
        raise UsageError(f"{path}: {loaded.message}", loaded.remedy)
    return loaded


def note(bundle: Path, weights: Path, metrics: Mapping[str, Any]) -> None:
    """The figures and the weights' SHA-256 into metadata.json."""
    path = bundle / "configs" / "metadata.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    facts |= {"eval_metrics": metrics, "weights_sha256": file_digest(weights)}
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
