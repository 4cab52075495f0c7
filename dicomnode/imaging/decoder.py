"""The decoding process, started by `apart` with its end of a socket. One task after the other until the socket closes.

It may die at any moment and nothing is lost but the task: it holds no rows, opens only the files that it is told, and writes
into memory that its keeper gave it. What it says back is a number for each frame and a few words, never objects: after hostile
bytes its word is not to be believed further than that.
"""

import ctypes
import json
import mmap
import os
import pickle
import resource
import select
import signal
import socket
import struct
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.packing import type_packed, unpack
from dicomnode.imaging.slices import fill_as_they_come, fill_slices, reason_of, type_slice
from dicomnode.imaging.stored import decode_stored, encoded_frames
from dicomnode.imaging.values import DoesNotFit

READY = b"!"  # said once, before the first task
LENGTH = struct.Struct("<Q")  # of the pickled task, and of its answer; the memory's descriptor travels with the former
MOST_ANSWER_BYTES = 1 << 20
BEGUN, ENDED = 1, 2  # a byte for each frame, at the beginning of the memory
STORED = "stored"
NO_LONGER_WANTED = b"-"  # in place of further frames

# Above what the process has when it starts, and the volume: threads, the encoded frames and the codecs' own copies of them.
WORKING_BYTES = 4 << 30
_MOST_IDLE_BYTES = 64 << 20


def table_bytes(frames: int) -> int:
    """Size of the table of states before the pixels: whole pages, so that the pixels can be mapped without it."""
    return -(-frames // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """`dtype`: int16 or float32 for rescaled slices, or "stored" for the stored values of one frame.

    `shape`: (slices, rows, columns) of frames that come in further messages, while their headers are being read; None: all are
    in `frames`.
    """

    frames: type_packed
    dtype: str
    workers: int
    memory_bytes: int
    shape: tuple[int, int, int] | None = None


class _Slices:
    """Where a task's slices go, each thread's through a small array of its own, which stays in the cache.

    Written to the memory as to a file: a page that is first touched through a mapping costs three times as much.
    """

    def __init__(self, task: Task, shape: tuple[int, int, int], descriptor: int) -> None:
        self._shape, self._dtype, self._descriptor = shape[1:], np.dtype(task.dtype), descriptor
        self._begin = table_bytes(shape[0])
        self._table = mmap.mmap(descriptor, self._begin)
        self._own = threading.local()
        self.are_wanted = True

    def place(self, index: int) -> type_slice:
        """The array to fill for a slice that is begun."""
        if not self.are_wanted:
            raise CorruptPixels("nobody waits for it any more")
        self._table[index] = BEGUN
        if not hasattr(self._own, "array"):
            self._own.array = np.empty(self._shape, self._dtype)
        array: type_slice = self._own.array
        return array

    def ended(self, index: int) -> None:
        """The slice is in its place."""
        left = memoryview(self._own.array).cast("B")
        at = self._begin + index * len(left)
        while left:
            written = os.pwrite(self._descriptor, left, at)
            left, at = left[written:], at + written
        self._table[index] = ENDED


def _perform(task: Task, descriptor: int, messages: Iterator[bytes]) -> dict[str, Any]:
    if task.shape is not None:
        slices = _Slices(task, task.shape, descriptor)
        coming = _coming(messages, slices)
        return {"failures": fill_as_they_come(slices.place, coming, task.workers, ended=slices.ended)}
    frames = unpack(task.frames)
    if task.dtype == STORED:
        stored = decode_stored(encoded_frames(frames[0].instance)[frames[0].frame_index], frames[0].layout)
        with mmap.mmap(descriptor, task.memory_bytes) as memory:
            memory[table_bytes(1) : table_bytes(1) + stored.nbytes] = stored.tobytes()
        return {"stored": stored.dtype.str}
    size = frames[0].layout.frame_format
    slices = _Slices(task, (len(frames), size.rows, size.columns), descriptor)
    return {"failures": fill_slices(slices.place, frames, task.workers, ended=slices.ended)}


def _coming(messages: Iterator[bytes], slices: _Slices) -> Iterator[tuple[int, Frame]]:
    for message in messages:
        if message == NO_LONGER_WANTED:
            slices.are_wanted = False
            return
        indices, packed = pickle.loads(message)  # noqa: S301 - from the keeper, as the task is
        yield from zip(indices, unpack(packed), strict=True)


def _answer(task: Task, descriptor: int, messages: Iterator[bytes]) -> dict[str, Any]:
    _limit_address_space(WORKING_BYTES + task.memory_bytes)
    try:
        return _perform(task, descriptor, messages)
    except (CorruptPixels, OSError) as error:
        return {"failures": [(0, reason_of(error))]}
    except DoesNotFit:
        return {"misfit": True}
    except MemoryError:
        return {"no_memory": True}
    except Exception as error:  # noqa: BLE001 - the boundary of a task: what nobody foresaw is raised on the other side
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {"bug": f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"}
    finally:
        os.close(descriptor)


_vm_bytes_at_start = 0


def _limit_address_space(more: int) -> None:
    """Codecs that are promised gigabytes by a codestream get an error in place of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _vm_bytes_at_start + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _receive(connection: socket.socket) -> tuple[Task, int] | None:
    header, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 1, socket.MSG_WAITALL)
    content = _content(connection, header)
    if not content:
        return None
    # From the keeper, over a socket that nobody else has.
    task: Task = pickle.loads(content)  # noqa: S301
    return task, descriptors[0]


def _content(connection: socket.socket, header: bytes) -> bytes:
    """What follows the length in `header`; empty at the end of the connection."""
    if len(header) < LENGTH.size:
        return b""
    (length,) = LENGTH.unpack(header)
    content = connection.recv(length, socket.MSG_WAITALL) if length else b""
    return content if len(content) == length else b""


def _messages(connection: socket.socket) -> Iterator[bytes]:
    """What belongs to the task under way; the keeper ends it with an empty message."""
    while content := _content(connection, connection.recv(LENGTH.size, socket.MSG_WAITALL)):
        yield content


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
    connection.sendall(READY)
    while (received := _receive(connection)) is not None:
        messages = iter(()) if received[0].shape is None else _messages(connection)
        told = _answer(*received, messages)
        deque(messages, maxlen=0)  # of a task that failed: what is left of it would be taken for the next one
        answer = json.dumps(told).encode()
        connection.sendall(LENGTH.pack(len(answer)) + answer)
        trim(_MOST_IDLE_BYTES)
