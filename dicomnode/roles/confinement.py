"""What the worker's process may not do: take more memory than it was given, and reach the network.

It runs models that others wrote on pixels that others sent. The service's unit limits it from outside (deploy/systemd); this
holds where there is none, in a container or a terminal, and needs no privilege.
"""

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
import sys
from pathlib import Path

import structlog
from sqlalchemy import make_url

_log = structlog.get_logger()
_MB = 1 << 20
_SHARE = 0.8  # of what there is; the other roles and the system live of the rest
_NO_LIMIT = 1 << 60  # cgroup v1 writes a huge number where there is no limit

# --- memory


def limit_memory(limit_bytes: int) -> None:
    """Beyond it an allocation fails and costs the job, in place of the machine's OOM killer choosing a role.

    RLIMIT_DATA: what the process writes to (setrlimit(2)). RLIMIT_AS would count a GPU's reserved addresses too.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def memory_given() -> int:
    """Bytes that this worker may take: four fifths of the machine's, or of what its control group may have."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(_SHARE * min([machine, *_control_group_limits()]))


def _control_group_limits() -> list[int]:
    """Of the groups that this process is in, version 2 and 1 (cgroups(7))."""
    limits = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        root, name = Path("/sys/fs/cgroup"), "memory.max"
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            root, name = root / "memory", "memory.limit_in_bytes"
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):
            limits += [int(one) for one in _lines(folder / name) if one.isdecimal() and int(one) < _NO_LIMIT]
    return limits


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


# --- network

_PYTHON_NETWORK = frozenset({
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
    "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
})  # fmt: skip

# linux/seccomp.h, linux/filter.h, linux/audit.h; numbers of the calls by processor.
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _FLAG_TSYNC = 38, 1, 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_IO_URING_SETUP = 425
_X32 = 0x40000000  # x86-64's other table of calls
_PROCESSORS = {"x86_64": (0xC000003E, 317, 41), "aarch64": (0xC00000B7, 277, 198)}  # AUDIT_ARCH, seccomp, socket


def reached_by_network(database_url: str) -> bool:
    """Whether this database is a server that is called by TCP: not a file, not a socket in a folder."""
    url = make_url(database_url)
    asked = url.query.get("host", "")
    host = url.host or (asked if isinstance(asked, str) else ",".join(asked))
    return not url.drivername.startswith("sqlite") and bool(host) and not host.startswith("/")


def refuse_network(*, database_by_network: bool) -> bool:
    """No connections from now on, for this process and its children: who tries gets PermissionError, and the job it costs.

    Python's calls are refused always. The kernel refuses every socket but AF_UNIX too (True), unless the database is reached by
    network: then libpq needs one.
    """
    sys.addaudithook(_refuse_python)
    if database_by_network:
        return False
    try:
        _filter_sockets()
    except OSError as error:  # a kernel without seccomp, another processor
        _log.warning("the kernel does not keep the worker off the network", error=type(error).__name__)
        return False
    return True


def _refuse_python(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _PYTHON_NETWORK:
        return
    if arguments and isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    raise PermissionError(errno.EACCES, "the worker opens no connections")


def _filter_sockets() -> None:
    """seccomp(2), without a library: eleven instructions."""
    processor = _PROCESSORS.get(platform.machine())
    if processor is None:
        raise OSError(errno.ENOSYS, "no table of calls for this processor")
    architecture, seccomp, socket_call = processor
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, 7, architecture),  # another table of calls: none of it
        (_LOAD, 0, 0, _NR),
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 4, 0, _IO_URING_SETUP),  # opens sockets past this filter
        (_EQUAL, 0, 2, socket_call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 2, int(socket.AF_UNIX)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
    ]
    code = b"".join(struct.pack("<HBBI", *one) for one in program)
    instructions = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # All threads: numpy started some when it was imported.
    if libc.syscall(seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.create_string_buffer(described, len(described))) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")
