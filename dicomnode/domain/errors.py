"""Errors with a remedy. `retryable` decides what the worker does; nobody reads the text to decide.

DicomNodeError
├── SettingsError            exit code 2
├── UsageError               exit code 2
│   └── NothingToDo          exit code 1
├── UnreachableError         exit code 3, retryable
│   ├── PeerUnreachable
│   └── DatabaseUnreachable
├── StorageError
│   ├── OutOfSpace           retryable; C-STORE status A700
│   └── CorruptInstance
├── InvalidInstance          C-STORE status C000 / A900
├── PipelineError            a bundle that cannot be loaded or run
│   └── ResourceExhausted    retryable
├── ResultCheckFailed        a result that must not leave (delivery `held`)
└── StaleUpdate              a fenced update that changed no row
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the command line; part of the outside contract."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERNAL = 4


class DicomNodeError(Exception):
    """What went wrong, what to do about it, and whether trying again can help."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} — {self.remedy}"


class SettingsError(DicomNodeError):
    """A setting is missing, unknown or wrong."""

    exit_code = ExitCode.USAGE


class UsageError(DicomNodeError):
    """The command was called wrongly."""

    exit_code = ExitCode.USAGE


class NothingToDo(UsageError):
    """Rightly asked, but it does not exist, or is in a state in which this changes nothing."""

    exit_code = ExitCode.NO


class UnreachableError(DicomNodeError):
    """Something outside the process does not answer."""

    exit_code = ExitCode.UNREACHABLE
    retryable = True


class PeerUnreachable(UnreachableError):
    """A DICOM peer refused, aborted or did not answer."""


class DatabaseUnreachable(UnreachableError):
    """The database cannot be opened or does not answer."""


class StorageError(DicomNodeError):
    """Bytes could not be kept or read."""

    exit_code = ExitCode.NO


class OutOfSpace(StorageError):
    """The disk is (nearly) full."""

    retryable = True


class CorruptInstance(StorageError):
    """Stored bytes no longer match their digest, or are missing."""


class InvalidInstance(DicomNodeError):
    """A received object lacks what an instance must have. `status` is the C-STORE response status (PS3.4 B.2.3)."""

    exit_code = ExitCode.NO

    def __init__(self, what: str, remedy: str, status: int) -> None:
        super().__init__(what, remedy)
        self.status = status


class PipelineError(DicomNodeError):
    """A pipeline cannot be loaded, is not allowed to run, or failed."""

    exit_code = ExitCode.NO


class ResourceExhausted(PipelineError):
    """Memory ran out; another try, on less or elsewhere, may do."""

    retryable = True


class ResultCheckFailed(DicomNodeError):
    """A result contradicts its source and must not leave the node."""

    exit_code = ExitCode.NO


class StaleUpdate(DicomNodeError):
    """A fenced update (id, state, worker, attempt) matched no row: somebody else owns the row now."""

    exit_code = ExitCode.NO
