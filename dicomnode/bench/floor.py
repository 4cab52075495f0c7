"""The floor: bytes from the loopback into a fresh file, fdatasync, one byte back. No DICOM: `floor PORT FOLDER`.

What a receiver needs above this is the price of the protocol, the header and the row.
"""

import os
import socket
import struct
import sys
import threading
from pathlib import Path

_BUFFER_BYTES = 1 << 20


def _serve(connection: socket.socket, folder: Path, name: str) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    (size,) = struct.unpack(">Q", connection.recv(8, socket.MSG_WAITALL))
    number = 0
    with connection:
        while _keep(connection, buffer, size, folder / f"{name}-{number}"):
            connection.sendall(b"\1")
            number += 1


def _keep(connection: socket.socket, buffer: memoryview, size: int, path: Path) -> bool:
    """One image; False at the end of the connection."""
    count = connection.recv_into(buffer[: min(size, _BUFFER_BYTES)])
    if not count:
        return False
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    left = size
    while True:
        os.write(file, buffer[:count])
        left -= count
        if not left:
            break
        count = connection.recv_into(buffer[: min(left, _BUFFER_BYTES)])
        if not count:
            raise ConnectionError("the sender went in mid-image")
    os.fdatasync(file)
    os.close(file)
    return True


def main() -> None:
    """Serves until it is killed."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        number = 0
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, folder, str(number)), daemon=True).start()
            number += 1


if __name__ == "__main__":
    main()
