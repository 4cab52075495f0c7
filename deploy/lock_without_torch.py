"""Copy a hashed lock file, leaving out torch and the packages that only its CUDA build needs (see the Makefile)."""

import re
import sys
from pathlib import Path

LEFT_OUT = re.compile(r"^(torch|triton|cuda-.*|nvidia-.*)==")


def without_torch(lock: str) -> str:
    """`lock` without the requirement blocks of torch and its CUDA companions."""
    blocks = re.split(r"(?m)^(?=[a-z0-9])", lock)
    return "".join(block for block in blocks if not LEFT_OUT.match(block))


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(without_torch(Path(sys.argv[1]).read_text()))
