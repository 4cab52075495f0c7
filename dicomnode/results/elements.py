"""Elements of a data set at any depth, without converting what nobody asks for.

`Dataset.walk` looks every element up by tag and converts it: of a segmentation with a thousand frames that is half a second.
"""

import struct
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

type_known = dict[tuple[BaseTag, bytes], DataElement]


def elements_below(dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str] = ()) -> Iterator[DataElement]:
    """The elements of these tags or value representations, also those in the items of sequences."""
    yield from _below(dataset, tags, vrs, _marks(tags, vrs), None)


def elements_read_below(dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str] = ()) -> Iterator[DataElement]:
    """The same for one who only reads: sequences that were read with equal bytes become one, which is gone through once."""
    yield from _below(dataset, tags, vrs, _marks(tags, vrs), {})


def _marks(tags: Collection[BaseTag], vrs: Collection[str]) -> tuple[bytes, ...]:
    """One of these bytes stands before the value of each element that is looked for (PS3.5 7.1.2, little endian)."""
    return tuple(struct.pack("<HH", tag.group, tag.element) for tag in tags) + tuple(vr.encode() for vr in vrs)


def _below(
    dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str], marks: tuple[bytes, ...], known: type_known | None
) -> Iterator[DataElement]:
    for found in list(dataset.values()):
        vr = found.VR
        if vr == "SQ":
            key = None
            if isinstance(found, RawDataElement):
                value = found.value or b""
                key = (found.tag, value)
                if known is not None and key in known:
                    dataset[found.tag] = known[key]
                    continue
                if found.is_little_endian and not any(mark in value for mark in marks):
                    continue
            sequence = dataset[found.tag]
            if known is not None and key is not None:
                known[key] = sequence
            for item in sequence.value:
                yield from _below(item, tags, vrs, marks, known)
        elif found.tag in tags or vr in vrs:
            yield dataset[found.tag]


def content_key(dataset: Dataset, tag: BaseTag) -> object:
    """Of two elements with equal keys the content is equal, at no cost of parsing; None where there is none."""
    found = dataset.get_item(tag)
    return found.value if isinstance(found, RawDataElement) else None if found is None else id(found)


def distinct_values(datasets: Iterable[Dataset], keyword: str) -> list[Any]:
    """The values that an element has in these data sets, each encoding of one parsed once; None where it is absent."""
    tag = Tag(keyword)
    found: dict[object, Dataset] = {}
    for dataset in datasets:
        found.setdefault(content_key(dataset, tag), dataset)
    return [dataset.get(keyword) for dataset in found.values()]


def are_alike(datasets: Iterable[Dataset], keyword: str) -> bool:
    """Whether all have the element, with one value."""
    first, *others = distinct_values(datasets, keyword)
    return first is not None and all(value == first for value in others)
