"""Cases on disk, so that training draws patches from mapped files instead of drawing patients."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.learning.cases import Case


def save_case(folder: Path, case: Case) -> None:
    """Write one case as <name>.image.npy, <name>.truth.npy and, last, <name>.json: a half-written case is not listed."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{case.name}.image.npy", case.image)
    np.save(folder / f"{case.name}.truth.npy", case.truth)
    summary = {"shape": case.image.shape, "lesions": case.lesions.round(2).tolist()}
    (folder / f"{case.name}.json").write_text(json.dumps(summary))


def list_cases(folder: Path) -> list[str]:
    """Names of the complete cases in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load_case(folder: Path, name: str) -> Case:
    """A case with its arrays mapped from disk, not read."""
    summary = json.loads((folder / f"{name}.json").read_text())
    image = np.load(folder / f"{name}.image.npy", mmap_mode="r")
    truth = np.load(folder / f"{name}.truth.npy", mmap_mode="r")
    places = (np.array(summary.get(key, []), np.float32).reshape(-1, 3) for key in ("lesions", "traps", "missed"))
    return Case(name, image, truth, *places)


def missed_lesions(folder: Path) -> list[tuple[str, NDArray[np.float32]]]:
    """Every lesion of a folder's cases that a network missed: name of the case, centre in voxels."""
    summaries = ((name, json.loads((folder / f"{name}.json").read_text())) for name in list_cases(folder))
    return [(name, np.array(place, np.float32)) for name, summary in summaries for place in summary.get("missed", [])]


def note_errors(folder: Path, name: str, traps: NDArray[np.float32], missed: NDArray[np.float32] | None = None) -> None:
    """Add places (n, 3; voxels) of a case that look like a lesion and are none; `missed` replaces the lesions not seen."""
    path = folder / f"{name}.json"
    summary = json.loads(path.read_text())
    summary["traps"] = [*summary.get("traps", []), *traps.round(2).tolist()]
    if missed is not None:
        summary["missed"] = missed.round(2).tolist()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(summary))
    part.replace(path)
