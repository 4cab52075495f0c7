"""What every kind of destination offers: a connection for the objects of one job, an answer for each, and proof."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import Outcome
from dicomnode.network import CommitmentReport, CommitmentRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination made of one object. `message` is for people and holds no patient data and no UIDs.

    status: the C-STORE status, None where there is none. proof: what shows that it is there, where sending itself shows it.
    class_refused: the destination takes no objects of this class, or none in this form; it may take others.
    """

    outcome: Outcome
    status: int | None = None
    message: str = ""
    proof: str = ""
    class_refused: bool = False


class Connection(Protocol):
    """Open to one destination."""

    def takes(self, result: ResultObject) -> bool:
        """Whether this connection was opened for such an object; another one may."""
        ...

    def send(self, path: Path, result: ResultObject) -> Answer:
        """Send one object, whose bytes are at the absolute `path`; never raises for what the destination does or says."""
        ...


class Sender(Protocol):
    """One destination. query: what `holds` asks with, for people."""

    query: str

    def connect(self, first: ResultObject) -> AbstractContextManager[Connection]:
        """A connection fit for `first` and for what usually goes with it. Raises UnreachableError."""
        ...

    def holds(self, results: Sequence[ResultObject]) -> set[str]:
        """SOP Instance UIDs of those that the destination shows now. Raises UnreachableError when it does not say."""
        ...


@runtime_checkable
class Committing(Protocol):
    """A destination that may take responsibility for what it has (storage commitment, PS3.4 J)."""

    def ask_commitment(
        self, request: CommitmentRequest, reported: Callable[[CommitmentReport], None], *, wait_s: float
    ) -> bool:
        """Ask; whether the report came at once. Raises UnreachableError, also where the destination knows no commitment."""
        ...
