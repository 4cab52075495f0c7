"""Private storage SOP classes, as settings name them."""

import difflib
import re

from pydicom._uid_dict import UID_dictionary

# Missing in pydicom 3.0's dictionary under this name (PS3.4 B.5, Supplement 243).
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5 9.1
_LONGEST_UID = 64
_STORAGE = {
    keyword: uid for uid, (name, kind, _, _, keyword) in UID_dictionary.items() if kind == "SOP Class" and "Storage" in name
}


def extra_storage_class(text: str) -> str:
    """The UID of a storage class that the standard does not know. Raises ValueError."""
    text = text.strip()
    if text in UID_dictionary and text not in _STORAGE.values():
        raise ValueError(f"this is {UID_dictionary[text][0]}, no storage SOP class")
    if len(text) <= _LONGEST_UID and _UID.fullmatch(text):
        return text
    near = difflib.get_close_matches(text, _STORAGE, n=1, cutoff=0.6)
    if near:
        raise ValueError(f"give UIDs of private classes; {near[0]}, {_STORAGE[near[0]]}, is of the standard and taken anyway")
    raise ValueError("a SOP class is a UID: numbers without leading zeros, joined by dots, 64 characters at most")
