"""What every kind of destination offers: a connection for the objects of one job, an answer for each, and proof."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination made of one object. `message` is for people and holds no patient data and no UIDs.

    status: the C-STORE status, None where there is none. proof: what shows that it is there, where sending itself shows it.
    """

    outcome: Outcome
    status: int | None = None
    message: str = ""
    proof: str = ""


class Connection(Protocol):
    """Open to one destination."""

    def takes(self, result: ResultObject) -> bool:
        """Whether this connection was opened for such an object; another one may."""
        ...

    def send(self, path: Path, result: ResultObject) -> Answer:
        """Send one object, whose bytes are at the absolute `path`; never raises for what the destination does or says."""
        ...


class Sender(Protocol):
    """One destination."""

    def connect(self, first: ResultObject) -> AbstractContextManager[Connection]:
        """A connection fit for `first` and for what usually goes with it. Raises UnreachableError."""
        ...

    def holds(self, result: ResultObject) -> bool:
        """Whether the destination shows this object now. Raises UnreachableError when it does not say."""
        ...
