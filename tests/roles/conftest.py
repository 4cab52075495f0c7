"""Roles are tested as processes; what runs inside the test process leaves its logging as it was."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    structlog.reset_defaults()
