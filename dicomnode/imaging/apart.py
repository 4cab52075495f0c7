"""The keeper of the decoding process: starts it, gives it tasks and memory, and knows what to make of its end.

One decoding process for each process that asks, started when the first compressed frame is met and kept. The array is made
once, as shared memory, and filled from the other side: nothing is copied.
"""

import atexit
import json
import math
import mmap
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from dicomnode.domain.errors import ResourceExhausted
from dicomnode.imaging import decoder
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.packing import pack
from dicomnode.imaging.slices import type_failures, type_volume_pixels
from dicomnode.imaging.stored import type_stored
from dicomnode.imaging.values import DoesNotFit

_MOST_WORDS = 400
_MOST_BYTES_A_PIXEL = 4
_TOLD_AT_ONCE = 4  # frames of a volume that is decoded while its headers are read
# So long nothing may happen: a frame of 8192 × 8192 takes some ten seconds; codecs that hang, hang for ever.
SILENCE_S = 60.0
_STARTED_WITHIN_S = 60.0  # half a second on a machine that has nothing else to do
_ENVIRONMENT = {
    # glibc maps and unmaps each array of a megabyte otherwise: two threads gain nothing (measured).
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
_START = f"import sys; from {decoder.__name__} import main; main(sys.argv[1:])"
_KINDS_OF_STORED = frozenset({"|u1", "|i1", "<u2", "<i2", "<u4", "<i4"})


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a task: the decoding process's words, checked, or how it `died` before it had any."""

    failures: type_failures = field(default_factory=list)
    misfit: bool = False
    no_memory: bool = False
    stored_dtype: str = ""
    bug: str = ""
    died: str = ""

    @classmethod
    def of(cls, answer: bytes, frames: int) -> "_Outcome":
        """Raises ValueError or TypeError for what the decoding process would not say if it were well."""
        said = json.loads(answer)
        failures = [(int(index), str(words)[:_MOST_WORDS]) for index, words in said.get("failures", ())]
        if not all(0 <= index < frames for index, _ in failures):
            raise ValueError("a frame that was not asked for")
        return cls(
            failures,
            misfit="misfit" in said,
            no_memory="no_memory" in said,
            stored_dtype=str(said.get("stored", "")),
            bug=str(said.get("bug", ""))[:_MOST_WORDS],
        )


class _Died(Exception):
    """The text says how."""


class _DecodingProcess:
    """One process and this end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the last words of a C library that fails are no line of our log
                env={**os.environ, **_ENVIRONMENT},
            )
        ours.settimeout(SILENCE_S)  # one that reads no more is as dead as one that ended
        self._socket = ours
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)
        self._ready = False
        self.owner_pid = os.getpid()
        self.has_died = False

    def begin(self, task: decoder.Task, memory: "_SharedMemory") -> None:
        """The task is sent; how that went shows in its outcome."""
        content = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
        with self._sending():
            socket.send_fds(self._socket, [decoder.LENGTH.pack(len(content))], [memory.descriptor])
            self._socket.sendall(content)

    def add(self, message: bytes) -> None:
        """More of a task whose frames come by and by; an empty message ends it."""
        with self._sending():
            self._socket.sendall(decoder.LENGTH.pack(len(message)) + message)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """What cannot be sent is not: why shows when the answer is waited for. Closed, so that nobody waits for it twice."""
        try:
            yield
        except OSError:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def outcome(self, memory: "_SharedMemory") -> _Outcome:
        """Of the task that was begun: at its end or the process's."""
        try:
            if not self._ready:
                self._ready = self._read(1, _STARTED_WITHIN_S, lambda: 0) == decoder.READY
            (length,) = decoder.LENGTH.unpack(self._read(decoder.LENGTH.size, SILENCE_S, memory.ended))
            answer = self._read(min(length, decoder.MOST_ANSWER_BYTES), SILENCE_S, lambda: 0)
            return _Outcome.of(answer, memory.frames)
        except (_Died, OSError) as error:
            died = str(error) if isinstance(error, _Died) else self._how_it_ended()
        except (ValueError, TypeError):
            died = "answered nonsense"
        self.close()
        self.has_died = True
        return _Outcome(died=died)

    def _read(self, size: int, within_s: float, progress: Callable[[], int]) -> bytes:
        """Raises _Died when it ends, or makes no progress for so long."""
        parts, done, until = b"", progress(), time.monotonic() + within_s
        while len(parts) < size:
            if not self._selector.select(min(1.0, within_s)):
                if (now_done := progress()) > done:
                    done, until = now_done, time.monotonic() + within_s
                elif time.monotonic() >= until:
                    raise _Died(f"was not done after {within_s:g} s")
                continue
            part = self._socket.recv(size - len(parts))
            if not part:
                raise _Died(self._how_it_ended())
            parts += part
        return parts

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"

    def close(self) -> None:
        """Ends it; harmless twice."""
        self._selector.close()
        self._socket.close()
        if os.getpid() == self.owner_pid:
            self._process.kill()
            self._process.wait()


class _Keeper:
    """The one decoding process of this process, renewed when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _DecodingProcess | None = None

    def perform(self, task: decoder.Task, memory: "_SharedMemory") -> _Outcome:
        """One task at a time: each uses all the threads that it was allowed."""
        with self.lent() as process:
            process.begin(task, memory)
            return process.outcome(memory)

    @contextmanager
    def lent(self) -> Iterator[_DecodingProcess]:
        """The process for one task, whose outcome must have been had at the end: another task would be told it otherwise."""
        with self._lock:
            if self._process is None or self._process.owner_pid != os.getpid():
                self._process = _DecodingProcess()
            try:
                yield self._process
            except BaseException:
                self._process.close()
                self._process = None
                raise
            if self._process.has_died:
                self._process = None

    def close(self) -> None:
        """At the end of this process, and between tests."""
        with self._lock:
            if self._process is not None:
                self._process.close()
            self._process = None


_keeper = _Keeper()
atexit.register(_keeper.close)


def close() -> None:
    """Ends the decoding process, if there is one; the next compressed frame starts another."""
    _keeper.close()


def decode_slices(
    frames: Sequence[Frame], dtype: np.dtype[np.generic], workers: int
) -> tuple[type_volume_pixels, type_failures]:
    """(z, y, x) rescaled values of `frames` and what cannot be decoded. Raises DoesNotFit and ResourceExhausted."""
    size = frames[0].layout.frame_format
    shape = (len(frames), size.rows, size.columns)
    with _SharedMemory(len(frames), int(np.prod(shape)) * dtype.itemsize) as memory:
        task = decoder.Task(pack(frames), dtype.name, workers, memory.size_bytes)
        failures, _ = _judged(_keeper.perform(task, memory), frames, memory.unfinished())
        return memory.pixels(dtype).reshape(shape), failures


class Advance:
    """Slices that are decoded while the headers of further ones are still read. To be used by one thread, and closed."""

    def __init__(self, shape: tuple[int, int, int], workers: int) -> None:
        """shape: (slices, rows, columns) of an int16 volume."""
        self._shape = shape
        self._frames: dict[int, Frame] = {}
        self._held: list[tuple[int, Frame]] = []
        self._open = True
        with ExitStack() as kept:
            self._memory = kept.enter_context(_SharedMemory(shape[0], math.prod(shape) * np.dtype(np.int16).itemsize))
            self._process = kept.enter_context(_keeper.lent())
            self._process.begin(decoder.Task(pack([]), "int16", workers, self._memory.size_bytes, shape), self._memory)
            self._kept = kept.pop_all()

    def add(self, index: int, frame: Frame) -> None:
        """Slice `index` is to become the rescaled values of `frame`, a single-frame image of the shape's size."""
        self._frames[index] = frame
        self._held.append((index, frame))
        if len(self._held) == _TOLD_AT_ONCE:
            self._tell()

    def _tell(self) -> None:
        if self._held:
            message = [index for index, _ in self._held], pack([frame for _, frame in self._held])
            self._process.add(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
            self._held.clear()

    def finish(self) -> tuple[type_volume_pixels, type_failures]:
        """The volume and what of it cannot be decoded. Raises DoesNotFit and ResourceExhausted."""
        self._open = False
        with self._kept:
            self._tell()
            self._process.add(b"")
            outcome = self._process.outcome(self._memory)
            unfinished = self._memory.unfinished()
            pixels = self._memory.pixels(np.dtype(np.int16)).reshape(self._shape)
        # Alone, each frame that was under way shows whether it was at fault: the process must be free again for that.
        failures, _ = _judged(outcome, [self._frames[index] for index in range(self._shape[0])], unfinished)
        return pixels, failures

    def close(self) -> None:
        """Without a volume: what is under way is waited for, nothing else is begun. Harmless after `finish`, and twice."""
        if self._open:
            self._open = False
            with self._kept:
                self._process.add(decoder.NO_LONGER_WANTED)
                self._process.add(b"")
                self._process.outcome(self._memory)


def decode_stored(frame: Frame) -> tuple[type_stored | None, type_failures]:
    """Stored values (y, x) of one frame, or None and why not. Raises ResourceExhausted."""
    size = frame.layout.frame_format
    with _SharedMemory(1, size.rows * size.columns * _MOST_BYTES_A_PIXEL) as memory:
        task = decoder.Task(pack([frame]), decoder.STORED, 1, memory.size_bytes)
        failures, kind = _judged(_keeper.perform(task, memory), [frame], [0])
        if failures:
            return None, failures
        stored: type_stored = memory.pixels(np.dtype(kind))[: size.rows * size.columns].reshape(size.rows, size.columns)
        return stored, []


def _judged(outcome: _Outcome, frames: Sequence[Frame], unfinished: Sequence[int]) -> tuple[type_failures, str]:
    """What cannot be decoded, and the type of stored values. Raises DoesNotFit and ResourceExhausted."""
    if outcome.died:
        return _at_fault(outcome.died, frames, unfinished), ""
    if outcome.no_memory:
        raise MemoryError
    if outcome.bug:
        raise RuntimeError(f"in the decoding process: {outcome.bug}")
    if outcome.misfit:
        raise DoesNotFit
    if outcome.stored_dtype and outcome.stored_dtype not in _KINDS_OF_STORED:
        return [(0, "a decoded frame is of no known type")], ""
    return outcome.failures, outcome.stored_dtype


def _at_fault(died: str, frames: Sequence[Frame], unfinished: Sequence[int]) -> type_failures:
    """Of the frames that were under way when the process died, those with which another one dies too: each alone."""
    failures: type_failures = []
    for index in unfinished:
        size = frames[index].layout.frame_format
        with _SharedMemory(1, size.rows * size.columns * _MOST_BYTES_A_PIXEL) as memory:
            alone = _keeper.perform(decoder.Task(pack([frames[index]]), decoder.STORED, 1, memory.size_bytes), memory)
        if alone.died:
            failures.append((index, f"its decoder {alone.died}"))
    if not failures:
        raise ResourceExhausted(
            f"the decoding process {died}, and no image makes it do so again",
            "look in the system's log for memory that ran out; the job is tried again",
        )
    return failures


class _SharedMemory:
    """Memory that another process fills: a table of frames' states, then pixels."""

    def __init__(self, frames: int, pixel_bytes: int) -> None:
        self.frames = frames
        self._table_bytes = decoder.table_bytes(frames)
        self.size_bytes = self._table_bytes + pixel_bytes
        self.descriptor = os.memfd_create("dicomnode-pixels")
        try:
            os.truncate(self.descriptor, self.size_bytes)
            self._table = mmap.mmap(self.descriptor, self._table_bytes)
        except OSError as error:
            os.close(self.descriptor)
            raise MemoryError from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        os.close(self.descriptor)  # arrays over it hold the memory

    def ended(self) -> int:
        """How many frames are done."""
        return self._table[: self.frames].count(decoder.ENDED)

    def unfinished(self) -> list[int]:
        """Frames that were begun and not ended."""
        return [index for index, state in enumerate(self._table[: self.frames]) if state == decoder.BEGUN]

    def pixels(self, dtype: np.dtype[np.generic]) -> np.ndarray:
        """One flat array. Asked for after it was filled: then its pages are mapped at once."""
        size = self.size_bytes - self._table_bytes
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return np.frombuffer(mmap.mmap(self.descriptor, size, flags, offset=self._table_bytes), dtype)
