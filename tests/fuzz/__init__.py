"""Mutated bytes against every reader of what peers send: PDUs, command sets, data sets' headers, association requests.

`python -m tests.fuzz --cases 1000000` runs the pure readers in this process, then whole sessions against a real
receive process. A case is known by its target, seed and number: the same numbers give the same bytes. What fails is saved.
"""
