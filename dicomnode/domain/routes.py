"""Routes, destinations and peers as values: what the settings file says, ready for use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from dicomnode.domain.profiles import Profile

type_match = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class PeerTls:
    """PEM files for calls by TLS. certificate, key: ours, None to show none. ca: who signs the peer's; None: the machine's.

    pinned: the peer shows a certificate of `ca` itself, whoever signed it and whatever host it names.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity that may talk to us or be called by us."""

    name: str
    ae_title: str
    host: str
    port: int
    may: frozenset[str]
    tls: PeerTls | None = None  # how we call it; None: plain DICOM


@dataclass(frozen=True, slots=True)
class Destination:
    """Where results go. `peer` for kind dicom, `url` of the service for stow and fhir, `path` for kind folder."""

    name: str
    kind: Literal["dicom", "stow", "folder", "fhir"]
    profile: Profile
    proof: Literal["commitment", "find", "status"]
    accept_demonstration: bool
    peer: Peer | None = None
    path: Path | None = None
    url: str | None = None


def _one_matches(pattern: str, value: str) -> bool:
    pattern, value = pattern.strip(), value.strip()
    for sign in ("<=", ">=", "<", ">"):
        if pattern.startswith(sign):
            try:
                number, limit = float(value), float(pattern.removeprefix(sign))
            except ValueError:
                return False
            return {"<=": number <= limit, ">=": number >= limit, "<": number < limit, ">": number > limit}[sign]
    return fnmatchcase(value.upper(), pattern.upper())


def unmet(match: type_match, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each condition that `attributes` (keyword → text) does not meet; empty where all are met.

    A multi-valued attribute matches a pattern when the whole text or any one of its values does.
    """
    found = []
    for keyword, patterns in match.items():
        text = attributes.get(keyword, "")
        values = (text, *text.split("\\")) if "\\" in text else (text,)
        if not any(_one_matches(pattern, value) for pattern in patterns for value in values):
            wanted = " or ".join(repr(pattern) if pattern else "empty" for pattern in patterns)
            found.append(f"{keyword} is {text!r}, wanted {wanted}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class InputRole:
    """One of the series that a pipeline reads together. derived: a computed series (an ADC map) may fill it too."""

    name: str
    match: type_match
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Which studies go through which pipeline, and where the results go."""

    name: str
    match: type_match
    pipeline: str
    speed: Literal["exact", "fast"]
    select: Literal["best", "each"]
    send_to: tuple[str, ...]
    results: tuple[str, ...]
    quiet_s: float
    max_wait_s: float
    send_not_run: bool = True
    allow_many_frames_of_reference: bool = False  # in one series, also where Patient Identity Removed is not YES
    called_ae: tuple[str, ...] = field(default=())
    count_at: str = ""  # the peer that is asked how many images it lists, before a silent series counts as complete
    draw_identity: bool = False  # patient and study on captures, which then say so in Burned In Annotation
    canary: bool = False  # takes the node's own phantoms and nothing else
    priority: int = 0  # of its jobs; each step is worth as much as ten minutes of waiting

    def mismatches(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """One sentence for each condition that `attributes` (keyword → text) does not meet; empty when the route matches."""
        return unmet(self.match, attributes)
