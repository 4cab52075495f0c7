"""A DICOMweb server as destination: STOW-RS (PS3.18 10.5) for sending, QIDO-RS (PS3.18 10.6) as proof.

Python's own http.client: one request of two kinds needs no library, and the body is sent piece by piece from the spooled file.
"""

import http.client
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dicomnode.delivery.destination import Answer
from dicomnode.delivery.http_service import LONGEST_ANSWER_BYTES, HttpService
from dicomnode.domain.errors import UnreachableError
from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import SOP_CLASS_NOT_SUPPORTED, Outcome, outcome_of_store, store_status_in_words

_PIECE_BYTES = 1 << 20
# PS3.18 Table 10.5.3-1: stored all; stored with a warning, or some not; none stored, whose reasons stand in the answer.
_STORED, _SOME, _CONFLICT = 200, 202, 409
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
_PREAMBLE = b"\0" * 128 + b"DICM"


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes


class StowSender(HttpService):
    """One DICOMweb service, named by its root such as https://pacs.example/dicom-web."""

    what = "the DICOMweb service"
    query = "QIDO-RS"

    def takes(self, result: ResultObject) -> bool:  # noqa: ARG002
        """Any object."""
        return True

    def send(self, path: Path, result: ResultObject) -> Answer:
        """One POST of one instance. Without an answer the outcome is unknown and the same UID goes again."""
        with path.open("rb") as file:
            # Orthanc 1.10 keeps a file without preamble, says success, and cannot read it back (measured).
            if file.read(len(_PREAMBLE))[128:] != b"DICM":
                return Answer(Outcome.REJECTED, message="the spooled object has no DICOM preamble")
        try:
            reply = self._post(path)
        except (OSError, http.client.HTTPException) as error:
            return Answer(Outcome.TRY_AGAIN, message=f"STOW-RS gave no answer ({type(error).__name__})")
        return _meaning(reply, result.sop_instance_uid)

    def holds(self, results: Sequence[ResultObject]) -> set[str]:
        """The UIDs of those that the service lists. Raises UnreachableError."""
        return {one.sop_instance_uid for one in results if self._lists(one)}

    def _lists(self, result: ResultObject) -> bool:
        where = f"/studies/{result.study_instance_uid}/series/{result.series_instance_uid}/instances?"
        try:
            with closing(self._connection()) as connection:
                asked = urlencode({"SOPInstanceUID": result.sop_instance_uid})
                connection.request("GET", self._at.path + where + asked, headers={"Accept": "application/dicom+json"})
                reply = _read(connection)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        if reply.status == http.HTTPStatus.NO_CONTENT:
            return False
        if reply.status == http.HTTPStatus.NOT_FOUND:  # some answer so for a study that they do not have
            return False
        try:
            found = json.loads(reply.body) if reply.status == http.HTTPStatus.OK else None
            return any(_first(one, "00080018") == result.sop_instance_uid for one in found)  # type: ignore[union-attr]
        except (ValueError, TypeError):
            raise UnreachableError(
                f"the DICOMweb service answered {reply.status} when asked for an instance", "look at its own log"
            ) from None

    def _post(self, path: Path) -> _Reply:
        boundary = secrets.token_hex(16)
        # Orthanc's plugin 1.7 leaves a part out whose media type has a transfer-syntax parameter, and says 200 (measured).
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
        tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + path.stat().st_size + len(tail)),
            "Accept": "application/dicom+json",
        }
        with closing(self._connection()) as connection, path.open("rb") as file:
            connection.connect()
            connection.sock.settimeout(self._longest_send_s)
            connection.request("POST", self._at.path + "/studies", body=_pieces(head, file, tail), headers=headers)
            return _read(connection)


def _pieces(head: bytes, file: Any, tail: bytes) -> Iterator[bytes]:
    yield head
    while piece := file.read(_PIECE_BYTES):
        yield piece
    yield tail


def _read(connection: http.client.HTTPConnection) -> _Reply:
    answer = connection.getresponse()
    return _Reply(answer.status, answer.read(LONGEST_ANSWER_BYTES))


def _meaning(reply: _Reply, sop_instance_uid: str) -> Answer:
    """PS3.18 10.5.3: the failure and warning reasons are those of C-STORE (PS3.4 B.2.3, PS3.18 Table I.2-2)."""
    said = _reasons(reply.body)
    if reply.status in (_STORED, _SOME, _CONFLICT) and (failure := said.get(_FAILURE_REASON)) is not None:
        outcome = outcome_of_store(failure)
        message = f"STOW-RS gave {store_status_in_words(failure)}"
        return Answer(outcome, status=failure, message=message, class_refused=failure == SOP_CLASS_NOT_SUPPORTED)
    if reply.status in (_STORED, _SOME) and not _names(reply.body, sop_instance_uid):
        return Answer(Outcome.DOUBTFUL, message=f"STOW-RS answered HTTP {reply.status} and names no stored instance")
    if reply.status in (_STORED, _SOME):
        warning = said.get(_WARNING_REASON)
        if warning is None:
            return Answer(Outcome.ACCEPTED, status=0)
        message = f"STOW-RS gave {store_status_in_words(warning)}"
        return Answer(Outcome.ACCEPTED_WITH_WARNING, status=warning, message=message)
    message = f"STOW-RS answered HTTP {reply.status}"
    if reply.status in _PASSING:
        return Answer(Outcome.TRY_AGAIN, message=message)
    if reply.status == http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return Answer(Outcome.REJECTED, message=message, class_refused=True)
    # 401 and 403 are somebody's setting, which somebody may mend within hours.
    return Answer(Outcome.DOUBTFUL, message=message)


def _reasons(body: bytes) -> dict[str, int]:
    """The reasons that the answer names (DICOM JSON, PS3.18 10.5.3.2), by tag; nothing for an answer that cannot be read."""
    found: dict[str, int] = {}
    try:
        answer = json.loads(body)
        answer = answer[0] if isinstance(answer, list) else answer
        for sequence, reason in ((_FAILED_SOP_SEQUENCE, _FAILURE_REASON), (_REFERENCED_SOP_SEQUENCE, _WARNING_REASON)):
            for item in answer.get(sequence, {}).get("Value", []):
                if (value := _first(item, reason)) is not None:
                    found[reason] = int(value)
    except (ValueError, TypeError, AttributeError, IndexError):
        return found
    return found


def _names(body: bytes, sop_instance_uid: str) -> bool:
    """Whether the answer says that this instance is stored; an answer that is no DICOM JSON (some speak XML) is believed."""
    try:
        answer = json.loads(body)
        answer = answer[0] if isinstance(answer, list) else answer
        stored = answer[_REFERENCED_SOP_SEQUENCE].get("Value", [])
    except (ValueError, TypeError, KeyError, IndexError):
        return True
    return any(_first(item, "00081155") == sop_instance_uid for item in stored)


def _first(item: Any, tag: str) -> Any:
    values = item.get(tag, {}).get("Value", [])
    return values[0] if values else None
