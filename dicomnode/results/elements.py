"""Elements of a data set at any depth, without converting what nobody asks for.

`Dataset.walk` looks every element up by tag and converts it: of a segmentation with a thousand frames that is half a second.
"""

import struct
from collections.abc import Collection, Iterator

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag


def elements_below(dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str] = ()) -> Iterator[DataElement]:
    """The elements of these tags or value representations, also those in the items of sequences."""
    marks = tuple(struct.pack("<HH", tag.group, tag.element) for tag in tags) + tuple(vr.encode() for vr in vrs)
    yield from _below(dataset, tags, vrs, marks, None)


def elements_read_below(dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str] = ()) -> Iterator[DataElement]:
    """The same for one who only reads: of sequences that were read with equal bytes the first alone stands for all."""
    marks = tuple(struct.pack("<HH", tag.group, tag.element) for tag in tags) + tuple(vr.encode() for vr in vrs)
    yield from _below(dataset, tags, vrs, marks, set())


def _below(
    dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str], marks: tuple[bytes, ...], known: set[bytes] | None
) -> Iterator[DataElement]:
    for found in list(dataset.values()):
        vr = found.VR
        if vr == "SQ":
            if isinstance(found, RawDataElement) and _says_nothing(found, marks, known):
                continue
            for item in dataset[found.tag].value:
                yield from _below(item, tags, vrs, marks, known)
        elif found.tag in tags or vr in vrs:
            yield dataset[found.tag]


def _says_nothing(sequence: RawDataElement, marks: tuple[bytes, ...], known: set[bytes] | None) -> bool:
    """Whether a sequence that nobody has parsed yet holds none of the marks, which stand before the value of an element
    (PS3.5 7.1.2), or is known.
    """
    value = sequence.value or b""
    if known is not None:
        if value in known:
            return True
        known.add(value)
    return sequence.is_little_endian and not any(mark in value for mark in marks)
