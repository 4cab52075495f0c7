"""How an attempt at a job ends, and what an error says of that."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomnode.domain.errors import DicomNodeError, PipelineError, ResourceExhausted, ResultCheckFailed, StorageError
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import JobEvent
from dicomnode.storage.durable import FULL

NOBODYS_FAULT = FULL | {errno.EROFS}


@dataclass(slots=True)
class Ending:
    """How an attempt ends, for `Registry.finish_job`."""

    event: JobEvent
    reason_code: str = ""
    reason: str = ""
    remedy: str = ""
    findings_summary: Mapping[str, object] | None = None
    results: tuple[ResultObject, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: float | None = None


def disk_trouble(error: Exception) -> OSError | None:
    """What the file system said, if that is what went wrong."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return cause if isinstance(cause, OSError) and cause.errno in (*NOBODYS_FAULT, errno.EIO) else None


def code_of(error: Exception) -> str:
    """The reason code of a job that ended by this."""
    for kind, code in (
        (ResultCheckFailed, "result_check_failed"),
        (ResourceExhausted, "out_of_memory"),
        (MemoryError, "out_of_memory"),
        (PipelineError, "pipeline_failed"),
        (DicomNodeError, "node_failed"),
    ):
        if isinstance(error, kind):
            return code
    return "internal_error"
