"""Required attributes of a written object, by the standard's own tables (PS3.3, as highdicom carries them)."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from highdicom._standard_utils import (
    AttributeTypeValues,
    construct_module_tree,
    get_iod_module_map,
    get_sop_class_iod_map,
)
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
TYPE_1, TYPE_2 = AttributeTypeValues.REQUIRED, AttributeTypeValues.REQUIRED_EMPTY_IF_UNKNOWN
# Which macros a frame needs depends on the IOD's functional group table; frames are read back one by one elsewhere.
FRAMES = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})
# Its macros are required by value type, which the tables do not tell; the content is read back elsewhere.
CONTENT = "sr-document-content"
# Written by the image's own attributes, whose tables differ by transfer syntax; read back with the pixels.
PIXELS = frozenset({"PixelData"})

type_tree = Mapping[str, Any]


def check_required(dataset: Dataset, kind: str) -> None:
    """Raises ResultCheckFailed for the first attribute of type 1 that is absent or empty, or of type 2 that is absent.

    Of the modules that the object's IOD demands; nested items too, where their sequence is there. Classes that the tables do
    not know pass.
    """
    for tree in _mandatory_modules(str(dataset.SOPClassUID)):
        _check(dataset, tree, kind)


@cache
def _mandatory_modules(sop_class_uid: str) -> tuple[type_tree, ...]:
    iod = get_sop_class_iod_map().get(sop_class_uid)
    if iod is None:
        return ()
    keys = [module["key"] for module in get_iod_module_map()[iod] if module["usage"] == "M" and module["key"] != CONTENT]
    return tuple(construct_module_tree(key)["attributes"] for key in keys)


def _check(item: Dataset, tree: type_tree, kind: str) -> None:
    for keyword, wanted in tree.items():
        if keyword in PIXELS:
            continue
        if keyword not in item:
            if wanted["type"] in (TYPE_1, TYPE_2):
                raise ResultCheckFailed(f"{kind}: {keyword} is missing", REMEDY)
            continue
        nested = wanted.get("attributes")
        if wanted["type"] is TYPE_1 and item[keyword].is_empty:
            raise ResultCheckFailed(f"{kind}: {keyword} is missing", REMEDY)
        if nested and keyword not in FRAMES and item[keyword].VR == "SQ":
            for child in item[keyword].value:
                _check(child, nested, kind)
