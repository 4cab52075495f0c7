"""Synthetic patients: a CT of a thorax (or what is none) with planted truth, drawn from a seed, and its DICOM files.

Enters: a `ThoraxSpec`. Leaves: a `Phantom` (HU, affine, labels, planted nodules), and valid CT Image Storage files of it.
Promises: the same spec gives the same voxels and the same UIDs; no patient behind it; its equipment and UIDs are marked as a
phantom's, so a phantom is input, never taken for a result of this software. Knows no torch, no network, no rows.
"""

from dicomnode.phantom.dicom_files import phantom_uid, write_coronal_reformat, write_localizer, write_study
from dicomnode.phantom.spec import NoduleSpec, PatientText, Phantom, PlantedNodule, ThoraxSpec
from dicomnode.phantom.thorax import small_thorax, thorax

__all__ = [
    "NoduleSpec",
    "PatientText",
    "Phantom",
    "PlantedNodule",
    "ThoraxSpec",
    "phantom_uid",
    "small_thorax",
    "thorax",
    "write_coronal_reformat",
    "write_localizer",
    "write_study",
]
