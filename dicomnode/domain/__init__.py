"""The seams: frozen values that pass from room to room, and the tables that rule them.

Enters: nothing. Leaves: dataclasses (`Received`, `SeriesRef`, `Volume`, `Refusal`, `Findings`, `ResultObject`, `Route` …),
state tables, coded concepts, errors, UID and clock helpers.
Promises: no I/O, no knowledge of any other room; arrays are read-only, axes are (z, y, x), lengths are mm, world points are
DICOM LPS, times are aware UTC.
"""
