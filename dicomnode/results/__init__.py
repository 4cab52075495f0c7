"""Findings or a Refusal become DICOM objects.

Enters: `Findings` (or a `Refusal`), the image they belong to, the stored files of the source series, a `ResultRequest`.
Leaves: SEG, SR and SC files in a folder (or the "AI not run" SR and SC) as `ResultObject`s, and pictures for people.
Promises: patient and study are the source's; masks lie on the source's own grid; the same request and findings give the same
UIDs and the same bytes; every object says which model spoke and what it may be used for; `verify` reads back what was written
and raises before anything wrong can leave.
"""

from dicomnode.results.building import build, warm_up
from dicomnode.results.checks import verify
from dicomnode.results.pictures import picture, save_pictures

__all__ = ["build", "picture", "save_pictures", "verify", "warm_up"]
