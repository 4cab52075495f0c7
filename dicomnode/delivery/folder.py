"""A folder as destination: STUDY/SERIES/INSTANCE.dcm (.json: FHIR), whole or not there, read back before it counts."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dicomnode.delivery.destination import Answer
from dicomnode.domain.errors import UnreachableError
from dicomnode.domain.profiles import ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import Outcome

_COPY_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FolderSender:
    """Writes result objects under `root`, which must exist: an unmounted share must not be mistaken for an empty one."""

    query = "reading it back"

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def connect(self, first: ResultObject) -> Iterator["FolderSender"]:  # noqa: ARG002
        """The folder itself. Raises UnreachableError if it is not there."""
        if not self._root.is_dir():
            raise UnreachableError(f"the folder {self._root} is not there", "make it or mount it; delivery goes on by itself")
        yield self

    def takes(self, result: ResultObject) -> bool:  # noqa: ARG002
        """Any object."""
        return True

    def send(self, path: Path, result: ResultObject) -> Answer:
        """Write, sync, rename, sync the folder, read back. The same object again replaces itself by equal bytes."""
        if not all(_is_uid(uid) for uid in (result.study_instance_uid, result.series_instance_uid, result.sop_instance_uid)):
            return Answer(Outcome.REJECTED, message="a UID of the object is none, so it cannot name a file")
        target = self._target(result)
        try:
            _copy_durably(path, target)
            if sha256_of(target) != result.sha256:
                return Answer(Outcome.TRY_AGAIN, message="the written file reads back with other bytes")
        except OSError as error:
            return Answer(
                Outcome.TRY_AGAIN, message=f"the folder could not be written: {error.strerror or type(error).__name__}"
            )
        return Answer(Outcome.ACCEPTED, proof="written, synced and read back")

    def holds(self, results: Sequence[ResultObject]) -> set[str]:
        """The UIDs of those whose file is there with the same bytes."""
        try:
            return {one.sop_instance_uid for one in results if self._is_there(one)}
        except OSError as error:
            raise UnreachableError(f"the folder {self._root} cannot be read", "look at its rights and its mount") from error

    def _is_there(self, result: ResultObject) -> bool:
        try:
            return sha256_of(self._target(result)) == result.sha256
        except FileNotFoundError:
            return False

    def _target(self, result: ResultObject) -> Path:
        suffix = "json" if result.kind is ResultKind.FHIR else "dcm"
        return self._root / result.study_instance_uid / result.series_instance_uid / f"{result.sop_instance_uid}.{suffix}"


def _is_uid(text: str) -> bool:
    """PS3.5 9.1. Study Instance UIDs come from outside: nothing else may become part of a path."""
    return len(text) <= 64 and all(component.isascii() and component.isdigit() for component in text.split("."))


def _copy_durably(source: Path, target: Path) -> None:
    """Whoever watches the folder for *.dcm sees whole files only, and after a power cut the name or nothing."""
    for folder in (target.parent.parent, target.parent):
        if not folder.is_dir():
            folder.mkdir()
            _sync_folder(folder.parent)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as reading, temporary.open("wb") as writing:
            while piece := reading.read(_COPY_BYTES):
                writing.write(piece)
            writing.flush()
            os.fsync(writing.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
