"""Codes for what a bundle only names: channel_def says "left kidney", DICOM wants a coded concept.

Names that the standard's own dictionary (PS3.16 annex D, as pydicom carries it) holds get its SNOMED CT code; others get a code
of the private scheme 99DICOMNODE (PS3.16 8.2), whose meaning is the name itself. Either can be overruled in `pipeline.toml`.
"""

import hashlib
import re

from dicomnode.domain.findings import Code

PRIVATE_SCHEME = "99DICOMNODE"

ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")

_ABNORMAL_WORDS = re.compile(
    r"tumou?r|lesion|nodule|neoplasm|cancer|edema|oedema|necro|haemorrh|hemorrh|cyst|metasta|mass\b", re.I
)
# Usual names in bundles → the dictionary's keyword; sides are pre-coordinated where SNOMED CT has them so.
_USUAL = {
    "left lung": Code("44029006", "SCT", "Left lung"),
    "right lung": Code("3341006", "SCT", "Right lung"),
    "lung": Code("39607008", "SCT", "Lung"),
    "left kidney": Code("18639004", "SCT", "Left kidney"),
    "right kidney": Code("9846003", "SCT", "Right kidney"),
    "tumor": Code("108369006", "SCT", "Neoplasm"),
    "tumour": Code("108369006", "SCT", "Neoplasm"),
    "bladder": Code("89837001", "SCT", "Bladder"),
}
_COLORS = (
    *((0, 151, 206), (221, 130, 101), (128, 174, 128), (241, 214, 145), (216, 101, 79), (144, 238, 144), (192, 104, 88)),
    *((220, 245, 20), (78, 63, 0), (255, 250, 220), (230, 220, 70), (200, 200, 235), (250, 250, 210), (244, 214, 49)),
)


def concepts_of(label: str) -> tuple[Code, Code]:
    """(category, type) of a segment or class of this name."""
    name = re.sub(r"[\s_\-]+", " ", label).strip().lower()
    known = _USUAL.get(name) or _in_dictionary(name)
    if _ABNORMAL_WORDS.search(name):
        return ABNORMAL, known or private_code(label)
    return (ANATOMY if known else TISSUE), known or private_code(label)


def private_code(label: str) -> Code:
    """A code that stands for this very name; the same name gives the same code everywhere."""
    value = hashlib.sha256(label.strip().lower().encode()).hexdigest()[:12].upper()
    return Code(value, PRIVATE_SCHEME, label.strip()[:64] or "unnamed")


def color_of(channel: int) -> tuple[int, int, int]:
    """A recommended display colour; neighbouring channels differ."""
    return _COLORS[(channel - 1) % len(_COLORS)]


def _in_dictionary(name: str) -> Code | None:
    from pydicom.sr.codedict import codes

    words = name.split(" ")
    for order in (words, [*words[1:], *words[:1]]):  # "liver left lobe", "left liver lobe"
        keyword = "".join(word.capitalize() for word in order)
        if keyword.isidentifier() and hasattr(codes.SCT, keyword):
            found = getattr(codes.SCT, keyword)
            return Code(found.value, "SCT", found.meaning)
    return None
