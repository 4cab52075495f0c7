"""The next series is decoded while this one computes: forward passes leave a disk and half a processor idle.

Nothing is claimed ahead: another worker may take the job, and then what was decoded is dropped. Codecs run in a process of
their own, so bytes that kill them cost neither the job that runs nor this process.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from dicomnode import imaging
from dicomnode.domain.imaging import Image2D, Refusal, SeriesRef, Volume

MOST_FRAMES = 800  # of 512 × 512 in 16 bit: 420 MB beside the job that runs

type_loaded = Volume | Image2D | Refusal
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What would be loaded: a series with absolute paths, and whether its route takes several frames of reference."""

    series: SeriesRef
    allow_many_frames_of_reference: bool


class Ahead:
    """Holds one series at most. `find` names the next one, or None; it is called in the thread that decodes."""

    def __init__(self, find: Callable[[], Wish | None]) -> None:
        self._find = find
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._lock = threading.Lock()
        self._wish: Wish | None = None
        self._loaded: Future[type_loaded | None] | None = None

    def begin(self) -> None:
        """Decode the next series, unless one is held already."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._pool.submit(self._load)

    def load(self, wish: Wish) -> type_loaded:
        """The series: the one that is held, if it is this one; what else is held is dropped. Raises ResourceExhausted."""
        with self._lock:
            held, self._loaded = self._loaded, None
        if held is not None:
            loaded = held.result()
            if loaded is not None and self._wish == wish:
                return loaded
        return imaging.load(wish.series, allow_many_frames_of_reference=wish.allow_many_frames_of_reference)

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> type_loaded | None:
        try:
            self._wish = wish = self._find()
            if wish is None or sum(one.number_of_frames for one in wish.series.instances) > MOST_FRAMES:
                return None
            return imaging.load(wish.series, allow_many_frames_of_reference=wish.allow_many_frames_of_reference)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: the series' own job meets it again, and says it
            _log.info("a series could not be decoded ahead", exc_info=error)
            return None
