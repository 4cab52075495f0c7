"""A receiving node in a process of its own: `python -m tests.receiving.node_process ROOT [RESERVE_BYTES]`.

Prints "PORT <n>" and "MODULES <names>" when it listens; SIGTERM ends it in order.
"""

import signal
import sys
import threading
from pathlib import Path

from tests.receiving.reception import Reception

FORBIDDEN = {"torch", "monai", "highdicom", "imagecodecs", "fastapi"}


def main() -> None:
    root, reserve_bytes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with Reception(root, reserve_bytes=reserve_bytes) as reception:
        print("MODULES", *sorted(FORBIDDEN & set(sys.modules)), flush=True)
        print("PORT", reception.port, flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
