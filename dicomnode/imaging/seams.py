"""Several scan ranges in one series: which images belong to which, as the acquisition attributes tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dicomnode.imaging.geometry import type_vector
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.refusing import count, names

_TELLING = ("AcquisitionNumber", "AcquisitionTime")
_RANGES_AT_MOST = 8  # step-and-shoot scans number each rotation: that is one range


@dataclass(frozen=True, slots=True, eq=False)
class ScanRanges:
    """Frames grouped by the attribute that tells their acquisitions apart."""

    keyword: str
    members: Mapping[str, Sequence[Frame]]

    def changes_between(self, one: Frame, other: Frame) -> bool:
        """Whether the two frames belong to different acquisitions."""
        return one.distinctions[self.keyword] != other.distinctions[self.keyword]


def scan_ranges(frames: Sequence[Frame]) -> ScanRanges | None:
    """Two to eight acquisitions with at least two images each; None where the attributes tell of no such thing."""
    for keyword in _TELLING:
        members: dict[str, list[Frame]] = {}
        for frame in frames:
            members.setdefault(frame.distinctions[keyword], []).append(frame)
        if 2 <= len(members) <= _RANGES_AT_MOST and all(len(group) >= 2 for group in members.values()):
            return ScanRanges(keyword, members)
    return None


def joined_ranges(frames: Sequence[Frame]) -> int:
    """How many acquisitions follow each other in `frames` (in the order of the stack), as Acquisition Number tells; 1 if
    they alternate, as in interleaved scans."""
    ranges = scan_ranges(frames)
    if ranges is None or ranges.keyword != _TELLING[0]:
        return 1
    changes = sum(ranges.changes_between(*pair) for pair in pairwise(frames))
    return len(ranges.members) if changes == len(ranges.members) - 1 else 1


def describe_ranges(ranges: ScanRanges, normal: type_vector, beside: Sequence[Frame]) -> tuple[str, str]:
    """Message and remedy for a series that is several scan ranges; `beside` are the frames at its seams."""
    parts = []
    for number, (value, frames) in enumerate(ranges.members.items(), 1):
        offsets = sorted(float(frame.position @ normal) for frame in frames if frame.position is not None)
        # Times are left out: messages may be read where a patient's header must not be.
        name = f"{ranges.keyword} {value}" if ranges.keyword == _TELLING[0] else f"range {number}"
        parts.append(f"{name}: {count(len(frames), 'image')} from {offsets[0]:g} to {offsets[-1]:g} mm")
    message = (
        f"{_in_words(len(ranges.members))} scan ranges in one series ({'; '.join(parts)}), "
        f"which do not make one regular stack: their seams lie at {names(beside)}"
    )
    return message, f"Split the series by {ranges.keyword} at the scanner or in the archive, and send one scan range a series."


def _in_words(number: int) -> str:
    return ("two", "three", "four", "five", "six", "seven", "eight")[number - 2]
