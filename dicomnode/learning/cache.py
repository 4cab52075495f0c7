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
    lesions, traps = (np.array(summary.get(key, []), np.float32).reshape(-1, 3) for key in ("lesions", "traps"))
    return Case(name, image, truth, lesions, traps)


def add_traps(folder: Path, name: str, traps: NDArray[np.float32]) -> None:
    """Note places (n, 3; voxels) of a case that look like a lesion and are none."""
    path = folder / f"{name}.json"
    summary = json.loads(path.read_text())
    summary["traps"] = [*summary.get("traps", []), *traps.round(2).tolist()]
    path.write_text(json.dumps(summary))
