"""Required attributes of a written object, by the standard's own tables (PS3.3, as highdicom carries them)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from highdicom._standard_utils import (
    AttributeTypeValues,
    construct_module_tree,
    get_iod_module_map,
    get_sop_class_iod_map,
)
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicomnode.domain.errors import ResultCheckFailed

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
TYPE_1, TYPE_2 = AttributeTypeValues.REQUIRED, AttributeTypeValues.REQUIRED_EMPTY_IF_UNKNOWN
# Which macros a frame needs depends on the IOD's functional group table; frames are read back one by one elsewhere.
FRAMES = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})
# Its macros are required by value type, which the tables do not tell; the content is read back elsewhere.
CONTENT = "sr-document-content"
# Written by the image's own attributes, whose tables differ by transfer syntax; read back with the pixels.
PIXELS = frozenset({"PixelData"})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One attribute of a module; inside: those of its items, where they are looked at."""

    keyword: str
    tag: BaseTag
    type: AttributeTypeValues
    inside: "tuple[_Wanted, ...]"


def check_required(dataset: Dataset, kind: str) -> None:
    """Raises ResultCheckFailed for the first attribute of type 1 that is absent or empty, or of type 2 that is absent.

    Of the modules that the object's IOD demands; nested items too, where their sequence is there. Classes that the tables do
    not know pass.
    """
    _check(dataset, _mandatory(str(dataset.SOPClassUID)), kind)


@cache
def _mandatory(sop_class_uid: str) -> tuple[_Wanted, ...]:
    iod = get_sop_class_iod_map().get(sop_class_uid)
    if iod is None:
        return ()
    keys = [module["key"] for module in get_iod_module_map()[iod] if module["usage"] == "M" and module["key"] != CONTENT]
    return tuple(one for key in keys for one in _wanted(construct_module_tree(key)["attributes"]))


def _wanted(tree: Mapping[str, Any]) -> tuple[_Wanted, ...]:
    return tuple(
        _Wanted(keyword, Tag(keyword), one["type"], _wanted(one.get("attributes", {})) if keyword not in FRAMES else ())
        for keyword, one in tree.items()
        if keyword not in PIXELS
    )


def _check(item: Dataset, attributes: tuple[_Wanted, ...], kind: str) -> None:
    for one in attributes:
        if one.tag not in item:
            if one.type in (TYPE_1, TYPE_2):
                raise ResultCheckFailed(f"{kind}: {one.keyword} is missing", REMEDY)
            continue
        if one.type is TYPE_1 and item[one.tag].is_empty:
            raise ResultCheckFailed(f"{kind}: {one.keyword} is missing", REMEDY)
        if one.inside and item[one.tag].VR == "SQ":
            for child in item[one.tag].value:
                _check(child, one.inside, kind)
