"""The image library of the report (TID 1600): which images it leans on, and what they are."""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode.results.sr_terms import MODALITIES

# What TID 1602 and the modality's descriptors need; highdicom raises AttributeError without them.
DESCRIBED = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "FrameOfReferenceUID")
SOURCE = hd.sr.CodedConcept("260753009", "SCT", "Source")


def library_images(headers: Sequence[Dataset], key_headers: Sequence[Dataset], most: int) -> tuple[list[Dataset], str]:
    """All images of the series, or the key images where all would be more than `most`, and then a sentence that says so."""
    images = _unique(headers)
    if len(images) <= most:
        return images, ""
    key_images = _unique(key_headers)
    chosen = key_images[:most]
    what = "key images" if len(chosen) == len(key_images) else "first key images"
    return chosen, f"Image library: {len(chosen)} of {len(images)} images shown ({what})."


def library(images: Sequence[Dataset], *, own_frame_of_reference: bool) -> list[Any]:
    """The library's container, nothing without images.

    own_frame_of_reference: the images came with one; a derived one is none of theirs and they are listed without geometry.
    """
    if not images:
        return []
    full = [one for one in images if own_frame_of_reference and all(keyword in one for keyword in DESCRIBED)]
    if full:
        container = hd.sr.ImageLibrary(full)[0]
    else:
        container = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type="CONTAINS")
        container.ContentSequence = hd.sr.ContentSequence()
    rest = [one for one in images if not any(one is other for other in full)]
    if rest:
        group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type="CONTAINS")
        group.ContentSequence = hd.sr.ContentSequence([_entry(one) for one in rest])
        container.ContentSequence.append(group)
    return [container]


def _entry(header: Dataset) -> Any:
    """Projection images and multi-frame objects: what they are, without the geometry of a slice."""
    item = hd.sr.ImageContentItem(
        SOURCE,
        referenced_sop_class_uid=header.SOPClassUID,
        referenced_sop_instance_uid=header.SOPInstanceUID,
        relationship_type="CONTAINS",
    )
    modality = MODALITIES.get(str(header.get("Modality", "")))
    if modality is not None:
        described = hd.sr.CodeContentItem(codes.DCM.Modality, modality, relationship_type="HAS ACQ CONTEXT")
        item.ContentSequence = hd.sr.ContentSequence([described])
    return item


def _unique(headers: Sequence[Dataset]) -> list[Dataset]:
    return list({id(header): header for header in headers}.values())
