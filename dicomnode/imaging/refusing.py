"""Refusals in words: which images, and what the administrator of a PACS can do about it."""

from collections.abc import Sequence

from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.imaging.headers import Frame

SEND_AGAIN = "Send these images again from the scanner or the archive; if they fail again, they are damaged there too."

_NAMED_AT_MOST = 5


class Refused(Exception):
    """Carries a refusal out of the depth of this room; `load` hands it on as an ordinary value.

    The images concerned are `frames`, or `sop_instance_uids` where there are no frames yet.
    """

    def __init__(
        self,
        code: RefusalCode,
        message: str,
        remedy: str,
        frames: Sequence[Frame] = (),
        *,
        sop_instance_uids: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        uids = [*(frame.instance.ref.sop_instance_uid for frame in frames), *sop_instance_uids]
        self.refusal = Refusal(code, message, remedy, tuple(dict.fromkeys(uids)))


def names(frames: Sequence[Frame]) -> str:
    """ "image 12", "images 12, 13 and 14", "images 1, 2, 3, 4, 5 and 90 more": instance numbers, as a viewer shows them."""
    members: dict[str, list[Frame]] = {}
    for frame in frames:
        members.setdefault(str(frame.instance.path), []).append(frame)
    found = list(dict.fromkeys(name for group in members.values() for name in _names_within(group)))
    noun = "image" if len(found) == 1 else "images"
    if len(found) > _NAMED_AT_MOST:
        return f"{noun} {', '.join(found[:_NAMED_AT_MOST])} and {len(found) - _NAMED_AT_MOST} more"
    return f"{noun} {' and '.join(filter(None, [', '.join(found[:-1]), found[-1]]))}" if found else "no image"


def _names_within(frames: Sequence[Frame]) -> list[str]:
    """Of frames of one instance."""
    number, total = frames[0].instance.instance_number or "without a number", frames[0].layout.number_of_frames
    if total == 1:
        return [number]
    if len(frames) == total:
        return [f"{number} (all {total} frames)"]
    return [f"{number} frame {frame.frame_index + 1}" for frame in frames]


def count(number: int, noun: str) -> str:
    """ "1 image", "3 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
