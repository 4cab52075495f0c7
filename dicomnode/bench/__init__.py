"""How fast, beside what others use.

Enters: a folder on the disk in question, the cases to measure. Leaves: a `Report`: rows of medians over interleaved rounds,
ratios peer/ours, goals beside what was measured, and what was left out with its reason.
Promises: every subject runs as its own process with fresh storage, gets the same bytes in the same run, and counts only if
everything sent was answered 0x0000 and is there afterwards; absolutes belong to the machine named in the report, ratios travel.
One file a subject (`ingest`); the rest is shared by all of them.
"""

from dicomnode.bench.ingest import IngestPlan, ingest
from dicomnode.bench.measuring import Goal, Row
from dicomnode.bench.report import Report, figures

__all__ = ["Goal", "IngestPlan", "Report", "Row", "figures", "ingest"]
