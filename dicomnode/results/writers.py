"""What writes results: this software and the libraries that shape the bytes of an object (PS3.5 9: one UID, one object).

A change of any of them may change bytes, and must then change UIDs too. Our own part is named by its content, not by a version
number that somebody might forget to raise.
"""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from dicomnode import __version__, domain
from dicomnode.results.fonts import SYSTEM_FONTS

LIBRARIES = ("highdicom", "numpy", "pillow", "pydicom", "scikit-image")


def source_digest(*folders: Path) -> str:
    """SHA-256 (hex) of the Python files in these folders, by name and content."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


# As loaded: what is changed on disk while this process runs is not what writes.
WRITERS = (
    f"dicomnode {__version__} {source_digest(Path(__file__).parent, Path(domain.__file__).parent)}",
    *(f"{name} {version(name)}" for name in LIBRARIES),
)


@cache
def letters() -> str:
    """The system's font, which draws names: another one, other pixels. "" without."""
    found = next((path for path in SYSTEM_FONTS if path.is_file()), None)
    return "" if found is None else f"{found.name} {found.stat().st_size}"
