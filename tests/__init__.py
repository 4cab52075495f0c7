"""Tests, in the rooms' own folders; `tests.peers` holds the real peers that they talk to."""

import os

# Processes that run the tests beside each other (tests/beside.py) have a core each, and so has what they start. This is read
# when torch is loaded: earlier than any test.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
