"""Small libraries that are preloaded into a node, to make its disk worse than it is."""

import subprocess
from pathlib import Path

from tests.peers.processes import tool


def compiled(name: str, folder: Path) -> Path:
    """The shared library of `name`.c beside this file."""
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([tool("gcc", "gcc libc6-dev"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library
