"""Memory that is free in this process and of use to nobody: given back to the system before a forward pass asks for its own.

The service keeps what it freed for the next array (`MALLOC_TRIM_THRESHOLD_`): a page that is had again costs a fault. A forward
pass asks for larger pieces than what is left lying: 300 slices peaked at 1.53 GB with it and at 1.44 GB without.
"""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Milliseconds; nothing where the C library has no `malloc_trim` (musl)."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
