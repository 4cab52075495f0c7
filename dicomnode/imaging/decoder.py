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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.packing import type_packed, unpack
from dicomnode.imaging.slices import fill_slices, reason_of
from dicomnode.imaging.stored import decode_stored, encoded_frames
from dicomnode.imaging.values import DoesNotFit

READY = b"!"  # said once, before the first task
LENGTH = struct.Struct("<Q")  # of the pickled task, and of its answer; the memory's descriptor travels with the former
MOST_ANSWER_BYTES = 1 << 20
BEGUN, ENDED = 1, 2  # a byte for each frame, at the beginning of the memory
STORED = "stored"

# Above what the process has when it starts, and the volume: threads, the encoded frames and the codecs' own copies of them.
WORKING_BYTES = 4 << 30
_MOST_IDLE_BYTES = 64 << 20


def table_bytes(frames: int) -> int:
    """Size of the table of states before the pixels: whole pages, so that the pixels can be mapped without it."""
    return -(-frames // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """`dtype`: int16 or float32 for rescaled slices, or "stored" for the stored values of one frame."""

    frames: type_packed
    dtype: str
    workers: int
    memory_bytes: int


def _perform(task: Task, memory: mmap.mmap) -> dict[str, Any]:
    frames = unpack(task.frames)
    offset = table_bytes(len(frames))
    if task.dtype == STORED:
        stored = decode_stored(encoded_frames(frames[0].instance)[frames[0].frame_index], frames[0].layout)
        np.frombuffer(memory, stored.dtype, stored.size, offset)[:] = stored.ravel()
        return {"stored": stored.dtype.str}
    size = frames[0].layout.frame_format
    volume = np.frombuffer(memory, task.dtype, len(frames) * size.rows * size.columns, offset)
    failures = fill_slices(
        volume.reshape(len(frames), size.rows, size.columns),
        frames,
        task.workers,
        begun=lambda index: memory.__setitem__(index, BEGUN),
        ended=lambda index: memory.__setitem__(index, ENDED),
    )
    return {"failures": failures}


def _answer(task: Task, descriptor: int) -> dict[str, Any]:
    _limit_address_space(WORKING_BYTES + task.memory_bytes)
    memory = mmap.mmap(descriptor, task.memory_bytes)
    os.close(descriptor)
    try:
        return _perform(task, memory)
    except (CorruptPixels, OSError) as error:
        return {"failures": [(0, reason_of(error))]}
    except DoesNotFit:
        return {"misfit": True}
    except MemoryError:
        return {"no_memory": True}
    except Exception as error:  # noqa: BLE001 - the boundary of a task: what nobody foresaw is raised on the other side
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {"bug": f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"}


_vm_bytes_at_start = 0


def _limit_address_space(more: int) -> None:
    """Codecs that are promised gigabytes by a codestream get an error in place of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _vm_bytes_at_start + more
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _receive(connection: socket.socket) -> tuple[Task, int] | None:
    header, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, 1, socket.MSG_WAITALL)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
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
    connection.sendall(READY)
    while (received := _receive(connection)) is not None:
        answer = json.dumps(_answer(*received)).encode()
        connection.sendall(LENGTH.pack(len(answer)) + answer)
        trim(_MOST_IDLE_BYTES)
