"""Tests, in the rooms' own folders; `tests.peers` holds the real peers that they talk to."""
