"""SHA-256 of a bundle: which files are the model, and the one number that names them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.sidecar import SIDECAR_NAME

# Everything that can change a result or run code. docs/ and training logs cannot.
_RELEVANT_FOLDERS = ("configs", "models", "scripts")
_NNUNET_FILES = ("plans.json", "dataset.json")  # beside them the folders fold_0 …


def relevant_files(folder: Path) -> tuple[Path, ...]:
    """The files that make the model what it is, sorted by their POSIX path relative to `folder`.

    Raises PipelineError for a link that leads out of the folder: its target could change unseen.
    """
    root = folder.resolve()
    folders = (
        *_RELEVANT_FOLDERS,
        *(sorted(path.name for path in folder.glob("fold_*")) if (folder / "plans.json").is_file() else ()),
    )
    found = [folder / name for name in (SIDECAR_NAME, *_NNUNET_FILES)]
    found += [path for name in folders for path in _files_below(folder / name)]
    for path in found:
        if path.is_file() and not path.resolve().is_relative_to(root):
            raise PipelineError(f"{path} is a link that leads out of the bundle", "copy the file into the bundle")
    return tuple(sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(folder).as_posix()))


def bundle_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of `relevant_files`."""
    total = hashlib.sha256()
    for path in relevant_files(folder):
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        names = path.relative_to(folder).parts
        if path.is_file() and not any(name.startswith(".") or name == "__pycache__" for name in names):
            yield path
