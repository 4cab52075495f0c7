"""The keeper of the decoding process: starts it, gives it tasks and memory, and knows what to make of its end.

One decoding process for each process that asks, started when the first compressed frame is met and kept. The array is made
once, as shared memory, and filled from the other side: nothing is copied.
"""

import atexit
import mmap
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from dicomnode.domain.errors import ResourceExhausted
from dicomnode.imaging import decoder
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.slices import type_failures, type_volume_pixels
from dicomnode.imaging.stored import type_stored
from dicomnode.imaging.values import DoesNotFit

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


@dataclass(slots=True)
class _Outcome:
    """What came of a task. `died`: how the process ended before it was done."""

    failures: type_failures = field(default_factory=list)
    unfinished: set[int] = field(default_factory=set)  # begun, not ended
    misfit: bool = False
    no_memory: bool = False
    stored_dtype: str = ""
    bug: str = ""
    died: str = ""


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
        self._socket = ours
        self._selector = selectors.DefaultSelector()
        self._selector.register(ours, selectors.EVENT_READ)
        self._ready = False
        self.owner_pid = os.getpid()

    def perform(self, task: decoder.Task, memory: int) -> _Outcome:
        """The task, to its end or the process's."""
        outcome = _Outcome()
        try:
            if not self._ready:
                self._ready = self._read(1, _STARTED_WITHIN_S) == decoder.READY
            content = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
            socket.send_fds(self._socket, [decoder.TASK.pack(len(content))], [memory])
            self._socket.sendall(content)
            while self._take(outcome, len(task.frames)):
                pass
        except (_Died, OSError) as error:
            outcome.died = str(error) if isinstance(error, _Died) else self._how_it_ended()
            self.close()
        return outcome

    def _take(self, outcome: _Outcome, frames: int) -> bool:
        """One record; False after the last."""
        kind, frame, length = decoder.RECORD.unpack(self._read(decoder.RECORD.size))
        words = self._read(length).decode(errors="replace") if length else ""
        frame = min(frame, frames - 1)
        if kind == decoder.BEGUN:
            outcome.unfinished.add(frame)
        elif kind == decoder.ENDED:
            outcome.unfinished.discard(frame)
        elif kind == decoder.FAILED:
            outcome.failures.append((frame, words))
        elif kind == decoder.MISFIT:
            outcome.misfit = True
        elif kind == decoder.NO_MEMORY:
            outcome.no_memory = True
        elif kind == decoder.STORED:
            outcome.stored_dtype = words
        elif kind == decoder.BUG:
            outcome.bug = words
        return bool(kind != decoder.DONE)

    def _read(self, size: int, within_s: float | None = None) -> bytes:
        within_s = SILENCE_S if within_s is None else within_s
        parts = b""
        while len(parts) < size:
            if not self._selector.select(within_s):
                raise _Died(f"was not done after {within_s:g} s")
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

    def perform(self, task: decoder.Task, memory: int) -> _Outcome:
        """One task at a time: each uses all the threads that it was allowed."""
        with self._lock:
            if self._process is None or self._process.owner_pid != os.getpid():
                self._process = _DecodingProcess()
            try:
                outcome = self._process.perform(task, memory)
            except BaseException:  # what it still says would be taken for the answer to the next task
                self._process.close()
                self._process = None
                raise
            if outcome.died:
                self._process = None
            return outcome

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
    with _SharedMemory(int(np.prod(shape)) * dtype.itemsize) as memory:
        task = decoder.Task(tuple(frames), dtype.name, workers, memory.size_bytes)
        failures, _ = _judged(_keeper.perform(task, memory.descriptor), frames)
        return memory.mapped(dtype).reshape(shape), failures


def decode_stored(frame: Frame) -> tuple[type_stored | None, type_failures]:
    """Stored values (y, x) of one frame, or None and why not. Raises ResourceExhausted."""
    size = frame.layout.frame_format
    with _SharedMemory(size.rows * size.columns * 4) as memory:
        task = decoder.Task((frame,), decoder.STORED_TYPE, 1, memory.size_bytes)
        outcome = _keeper.perform(task, memory.descriptor)
        outcome.unfinished = {0}
        failures, kind = _judged(outcome, [frame])
        if failures:
            return None, failures
        stored: type_stored = memory.mapped(np.dtype(kind))[: size.rows * size.columns].reshape(size.rows, size.columns)
        return stored, []


def _judged(outcome: _Outcome, frames: Sequence[Frame]) -> tuple[type_failures, str]:
    """What cannot be decoded, and the type of stored values. Raises DoesNotFit and ResourceExhausted."""
    if outcome.died:
        return _at_fault(outcome, frames), ""
    if outcome.no_memory:
        raise MemoryError
    if outcome.bug:
        raise RuntimeError(f"in the decoding process: {outcome.bug}")
    if outcome.misfit:
        raise DoesNotFit
    if outcome.stored_dtype and outcome.stored_dtype not in _KINDS_OF_STORED:
        return [(0, "a decoded frame is of no known type")], ""
    return outcome.failures, outcome.stored_dtype


def _at_fault(outcome: _Outcome, frames: Sequence[Frame]) -> type_failures:
    """Of the frames that were under way when the process died, those with which another one dies too: each alone."""
    failures = list(outcome.failures)
    for index in sorted(outcome.unfinished):
        with _SharedMemory(frames[index].layout.frame_format.rows * frames[index].layout.frame_format.columns * 4) as memory:
            task = decoder.Task((frames[index],), decoder.STORED_TYPE, 1, memory.size_bytes)
            alone = _keeper.perform(task, memory.descriptor)
        if alone.died:
            failures.append((index, f"its decoder {alone.died}"))
    if not failures:
        raise ResourceExhausted(
            f"the decoding process {outcome.died}, and no image makes it do so again",
            "look in the system's log for memory that ran out; the job is tried again",
        )
    return failures


class _SharedMemory:
    """Memory that another process can fill, and the array over it here."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.descriptor = os.memfd_create("dicomnode-pixels")
        try:
            os.truncate(self.descriptor, size_bytes)
        except OSError as error:
            os.close(self.descriptor)
            raise MemoryError from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)  # arrays over it hold the memory

    def mapped(self, dtype: np.dtype[np.generic]) -> np.ndarray:
        """All of it as one flat array. Asked for after it was filled: then its pages are mapped at once."""
        return np.frombuffer(mmap.mmap(self.descriptor, self.size_bytes, mmap.MAP_SHARED | mmap.MAP_POPULATE), dtype)
