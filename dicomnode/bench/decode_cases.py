"""The table of `bench decode`: which transfer syntaxes, who decodes in each, and the goals set for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom import uid

from dicomnode.bench.decode_subject import BARE
from dicomnode.bench.measuring import OURS, Goal

ONE_THREAD, DEFAULT = "ours-1-thread", "pydicom"


@dataclass(frozen=True, slots=True)
class Case:
    """One CT series in one syntax. `lossy`: decoders may differ by the rounding of their inverse transform."""

    name: str
    transfer_syntax_uid: str
    subjects: tuple[str, ...]
    lossy: bool = False

    def chosen(self, *, full: bool) -> Sequence[str]:
        """Who takes part: every plug-in of pydicom with --full."""
        return (*self.subjects, *(name for name in ("gdcm", "pyjpegls", "pillow") if full and name not in self.subjects))


_OURS = (OURS, ONE_THREAD, DEFAULT)
_WITH_A_CODEC = (*_OURS, BARE, "pylibjpeg")
CASES = (
    Case("uncompressed", uid.ExplicitVRLittleEndian, _OURS),
    Case("RLE", uid.RLELossless, _OURS),
    Case("J2K", uid.JPEG2000Lossless, _WITH_A_CODEC),
    Case("HTJ2K", uid.HTJ2KLossless, _WITH_A_CODEC),
    Case("JPEG-LS", uid.JPEGLSLossless, _WITH_A_CODEC),
    Case("JPEG-lossless", uid.JPEGLosslessSV1, _WITH_A_CODEC),
    Case("JPEG-12-bit", uid.JPEGExtended12Bit, _WITH_A_CODEC, lossy=True),
)

# t(peer)/t(ours) to be reached on two cores, files to volume.
_RATIO_GOALS: Mapping[str, float] = {
    "uncompressed/pydicom": 1.6,
    "RLE/pydicom": 3.0,
    "J2K/pylibjpeg": 2.0,
    "HTJ2K/pylibjpeg": 3.5,
    "JPEG-LS/pylibjpeg": 8.0,
    "JPEG-lossless/pylibjpeg": 8.0,
    "JPEG-12-bit/pylibjpeg": 5.0,
}


def ceilings(ratios: Mapping[str, float]) -> dict[str, float]:
    """What the ratio of each goal would be if we were nothing but our codec by two threads; where that was measured."""
    return {
        name: round(ratios[name] / ratios[floor], 3)
        for name in _RATIO_GOALS
        if name in ratios and ratios.get(floor := f"{name.partition('/')[0]}/{BARE}")
    }


def goals(ratios: Mapping[str, float], cases: Sequence[Case], *, cores: int) -> list[Goal]:
    """Every goal of `cases` beside what was measured; they are set for two cores and more."""
    names = {case.name for case in cases}
    return [
        Goal(case, name, least, ratios.get(name), applies=cores >= 2)
        for name, least in _RATIO_GOALS.items()
        if (case := name.partition("/")[0]) in names
    ]
