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
    """Where the table of cases is, to which its paths are relative, and its lines, each with a `patient`. Raises UsageError."""
    table = (folder / "configs" / str(plan.get("cases", "cases.csv"))).resolve()
    if not table.is_file():
        raise UsageError(f"the table {table} does not exist", f"write it: {columns}")
    with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin UTF-8 with a mark
        lines = list(csv.DictReader(file, restval=""))
    return table, [{**line, "patient": _patient_of(line, table.parent)} for line in lines]


def _patient_of(line: Mapping[str, str], folder: Path) -> str:
    """Who a case is of: as the table says; else the Patient ID of its images, else their Study Instance UID, else their path.

    Two who share an ID (as "ANONYMOUS") count as one: then too many stand on one side, and never one on both.
    """
    named = line.get("patient", "").strip()
    if named:
        return named
    path = folder / line.get("path", "").strip()
    return (_said_by_headers(path) if line.get("path", "").strip() else "") or line.get("path", "").strip()


def _said_by_headers(path: Path) -> str:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    for file in files:
        try:
            header = dcmread(file, specific_tags=["PatientID", "StudyInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        return str(header.get("PatientID") or "").strip() or str(header.get("StudyInstanceUID") or "").strip()
    return ""


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
