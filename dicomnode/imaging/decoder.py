"""The decoding process, started by `apart` with its end of a socket. One task after the other until the socket closes.

It may die at any moment and nothing is lost but the task: it holds no rows, opens only the files that it is told, and writes
into memory that its keeper (`apart`) gave it. What it says back are records of numbers and a few words, never objects: after
hostile bytes its word is not to be believed further than that.
"""

import ctypes
import mmap
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.slices import fill_slices, reason_of
from dicomnode.imaging.stored import decode_stored, encoded_frames
from dicomnode.imaging.values import DoesNotFit

# What is said back: (kind, frame, length of the words that follow).
RECORD = struct.Struct("<BIH")
BEGUN, ENDED, FAILED, MISFIT, NO_MEMORY, STORED, BUG, DONE = range(8)
READY = b"!"  # said once, before the first task
TASK = struct.Struct("<Q")  # length of the pickled task; the memory's descriptor travels with it
STORED_TYPE = "stored"
MOST_WORDS = 400

# Above what the process has when it starts, and the volume: threads, the encoded frames and the codecs' own copies of them.
WORKING_BYTES = 4 << 30
_MOST_IDLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """`dtype`: int16 or float32 for rescaled slices, or "stored" for the stored values of one frame."""

    frames: tuple[Frame, ...]
    dtype: str
    workers: int
    memory_bytes: int


class _Answers:
    """What is said to the keeper, from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def say(self, kind: int, frame: int = 0, words: str = "") -> None:
        encoded = words.encode()[:MOST_WORDS]
        with self._lock:
            self._connection.sendall(RECORD.pack(kind, frame, len(encoded)) + encoded)


def _perform(task: Task, memory: mmap.mmap, answers: _Answers) -> None:
    if task.dtype == STORED_TYPE:
        (frame,) = task.frames
        stored = decode_stored(encoded_frames(frame.instance)[frame.frame_index], frame.layout)
        np.frombuffer(memory, stored.dtype, stored.size)[:] = stored.ravel()
        answers.say(STORED, words=stored.dtype.str)
        return
    size = task.frames[0].layout.frame_format
    volume = np.frombuffer(memory, task.dtype, len(task.frames) * size.rows * size.columns)
    failures = fill_slices(
        volume.reshape(len(task.frames), size.rows, size.columns),
        task.frames,
        task.workers,
        begun=lambda index: answers.say(BEGUN, index),
        ended=lambda index: answers.say(ENDED, index),
    )
    for index, words in failures:
        answers.say(FAILED, index, words)


def _run(task: Task, descriptor: int, answers: _Answers) -> None:
    _limit_address_space(WORKING_BYTES + task.memory_bytes)
    memory = mmap.mmap(descriptor, task.memory_bytes)
    os.close(descriptor)
    try:
        _perform(task, memory, answers)
    except (CorruptPixels, OSError) as error:
        answers.say(FAILED, 0, reason_of(error))
    except DoesNotFit:
        answers.say(MISFIT)
    except MemoryError:
        answers.say(NO_MEMORY)
    except Exception as error:  # noqa: BLE001 - the boundary of a task: what nobody foresaw is raised on the other side
        last = traceback.extract_tb(error.__traceback__)[-1]
        answers.say(BUG, words=f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}")
    answers.say(DONE)


_vm_bytes_at_start = 0


def _limit_address_space(more: int) -> None:
    """Codecs that are promised gigabytes by a codestream get an error in place of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _vm_bytes_at_start + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _receive(connection: socket.socket) -> tuple[Task, int] | None:
    header, descriptors, _, _ = socket.recv_fds(connection, TASK.size, 1, socket.MSG_WAITALL)
    if len(header) < TASK.size:
        return None
    (length,) = TASK.unpack(header)
    content = connection.recv(length, socket.MSG_WAITALL)
    if len(content) < length:
        return None
    # From the keeper, over a socket that nobody else has.
    task: Task = pickle.loads(content)  # noqa: S301
    return task, descriptors[0]


def _end_with_the_keeper(connection: socket.socket) -> None:
    """A codec that hangs must not outlive the process that waits for it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


def main(arguments: Sequence[str]) -> None:
    """Until the keeper closes its end."""
    global _vm_bytes_at_start  # noqa: PLW0603 - of the process, as its limit is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the keeper decides
    connection = socket.socket(fileno=int(arguments[0]))
    threading.Thread(target=_end_with_the_keeper, args=(connection,), daemon=True).start()
    _vm_bytes_at_start = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    trim = ctypes.CDLL(None).malloc_trim
    answers = _Answers(connection)
    connection.sendall(READY)
    while (received := _receive(connection)) is not None:
        _run(*received, answers)
        trim(_MOST_IDLE_BYTES)


if __name__ == "__main__":
    main(sys.argv[1:])
