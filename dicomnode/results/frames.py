"""Several multi-frame objects of one series, for writers that take a single one.

highdicom leans a segmentation or map on many single-frame images or on one multi-frame image (0.28). A scanner may spread a
stack over several objects (PS3.3 C.7.6.16.2.2.4, and those that make one for each slab): their frames are lent to one working
header, and what was built names each frame's own object again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicomnode.results.source import Sources

type_labels = NDArray[np.uint8] | NDArray[np.uint16]
PER_FRAME = "PerFrameFunctionalGroupsSequence"


def frame_count(header: Dataset) -> int:
    """Frames of an object; 1 where it does not say."""
    return int(header.get("NumberOfFrames") or 1)


def are_joined(sources: Sources) -> bool:
    """Whether the series is several multi-frame objects."""
    return len(sources.headers) > 1 and all(PER_FRAME in header for header in sources.headers)


def images_for_writers(sources: Sources) -> list[Dataset]:
    """Working headers of the source images, as highdicom takes them."""
    if not are_joined(sources):
        return list(sources.headers)
    joined = Dataset()
    joined.update(sources.headers[0])
    joined.file_meta = sources.headers[0].file_meta
    for keyword in ("NumberOfFrames", PER_FRAME):  # elements are shared: the first object keeps its own
        if keyword in joined:
            del joined[keyword]
    joined.NumberOfFrames = sum(frame_count(header) for header in sources.headers)
    joined.PerFrameFunctionalGroupsSequence = DicomSequence(
        [frame for header in sources.headers for frame in header.PerFrameFunctionalGroupsSequence]
    )
    return [joined]


def in_order_of_frames(labels: type_labels, sources: Sources) -> type_labels:
    """Slices in the order in which the source stores them: as they are for single-frame series, by frame number else."""
    counts = [frame_count(header) for header in sources.headers]
    if max(counts) == 1:
        return labels
    before = dict(zip(map(id, sources.headers), np.cumsum([0, *counts]), strict=False))
    places = [
        before[id(header)] + number - 1 for header, number in zip(sources.slice_headers, sources.frame_numbers, strict=True)
    ]
    frames = np.zeros((sum(counts), *labels.shape[1:]), labels.dtype)
    frames[places] = labels
    return frames


def name_own_objects(dataset: Dataset, sources: Sources) -> None:
    """References to frames of the working header become references to the frames of the objects that hold them."""
    if not are_joined(sources):
        return
    owners = [(header, number) for header in sources.headers for number in range(1, frame_count(header) + 1)]
    for group in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
        for derivation in group.get("DerivationImageSequence", ()):
            for item in derivation.SourceImageSequence:
                header, item.ReferencedFrameNumber = owners[int(item.ReferencedFrameNumber) - 1]
                item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    for series in dataset.get("ReferencedSeriesSequence", ()):
        series.ReferencedInstanceSequence = DicomSequence(_references(sources.headers))


def _references(headers: Sequence[Dataset]) -> list[Dataset]:
    items = []
    for header in headers:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        items.append(item)
    return items
