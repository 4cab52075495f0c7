"""Elements of a data set at any depth, without converting what nobody asks for.

`Dataset.walk` looks every element up by tag and converts it: of a segmentation with a thousand frames that is half a second.
"""

from collections.abc import Collection, Iterator

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag


def elements_below(dataset: Dataset, tags: Collection[BaseTag], vrs: Collection[str] = ()) -> Iterator[DataElement]:
    """The elements of these tags or value representations, also those in the items of sequences."""
    for found in list(dataset.values()):
        vr = found.VR
        if vr == "SQ":
            for item in dataset[found.tag].value:
                yield from elements_below(item, tags, vrs)
        elif found.tag in tags or vr in vrs:
            yield dataset[found.tag]
