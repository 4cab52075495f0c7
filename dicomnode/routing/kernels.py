"""How sharp is a CT's convolution kernel (0018,1210)? Each maker has names of its own; the standard gives none."""

import re
from enum import IntEnum


class Sharpness(IntEnum):
    """In the order of preference for models that were trained on soft or standard kernels."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


# GE says it in words; Philips' body kernels are letters (A, B, C smooth to standard; D, E, L and the Y family sharp).
_SOFT_NAMES = frozenset({"STANDARD", "SOFT", "STND", "STD", "STD+", "CHEST", "SMOOTH", "BODY", "DETAIL"} | {"A", "B", "C"})
_SHARP_NAMES = frozenset(
    {"LUNG", "BONE", "BONEPLUS", "BONE+", "EDGE", "ULTRA", "SHARP", "HD LUNG", "HD BONE"}
    | {"D", "E", "L", "YA", "YB", "YC", "YD"}
)
# Canon (Toshiba): FC01-FC19 body, FC20-FC29 head, both smooth; FC30 and above bone, lung, high resolution; FL lung.
_CANON = re.compile(r"F(?P<family>[CL])(?P<number>\d{2})")
# Siemens: family and a number that grows with sharpness: B30f, Br40d, Bl57, I31f, Qr40, Hr38. Bl is made for lungs.
_SIEMENS = re.compile(r"(?P<family>B[RFLVM]?|H[RCF]?|I|J|D|T|U|Q[R]?|S[AH]?)(?P<number>\d{2})(?!\d)")
_SIEMENS_SHARP_FROM = 50


def sharpness(convolution_kernel: str) -> Sharpness:
    """What the kernel's name says; of several values (iterative reconstruction adds its strength) the first."""
    name = convolution_kernel.split("\\", maxsplit=1)[0].strip().upper()
    if name in _SOFT_NAMES:
        return Sharpness.SOFT
    if name in _SHARP_NAMES:
        return Sharpness.SHARP
    if match := _CANON.match(name):
        return Sharpness.SHARP if match["family"] == "L" or int(match["number"]) >= 30 else Sharpness.SOFT
    if match := _SIEMENS.match(name):
        sharp = int(match["number"]) >= _SIEMENS_SHARP_FROM or match["family"] == "BL"
        return Sharpness.SHARP if sharp else Sharpness.SOFT
    return Sharpness.UNKNOWN
