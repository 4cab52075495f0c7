"""What a destination gets, in which form: data, so that another viewer is another row and no other code.

A profile decides only the form. What was found, and what the route asks for, is decided elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class ResultKind(StrEnum):
    """Kinds of result objects; the order of members is the order of sending."""

    SEG = "SEG"
    SR = "SR"
    SC = "SC"
    GSPS = "GSPS"
    KOS = "KOS"
    PARAMETRIC_MAP = "PM"
    PDF = "PDF"
    FHIR = "FHIR"


DEFAULT_KINDS = (ResultKind.SEG, ResultKind.SR, ResultKind.SC)  # of a route that asks for nothing else
DICOM_KINDS = tuple(kind for kind in ResultKind if kind is not ResultKind.FHIR)


class SegForm(StrEnum):
    """Segmentation Type (0062,0001); LABELMAP is a SOP class of its own."""

    BINARY = "binary"
    FRACTIONAL = "fractional"
    LABELMAP = "labelmap"


class OverLimit(StrEnum):
    """What becomes of a segmentation with more segments or frames than a destination bears. It is never cut."""

    SPLIT = "split"  # several instances in the one series
    LEAVE_OUT = "leave-out"  # no segmentation; the report says so


class WithoutFrameOfReference(StrEnum):
    """What becomes of a segmentation of a source that has no Frame of Reference UID."""

    DERIVATION = "derivation"  # no frame of reference; every frame names its source image (Derivation Image)
    DERIVED = "derived"  # a UID made from the series', recorded in the report
    LEAVE_OUT = "leave-out"


class SrForm(StrEnum):
    """Who reads the report: a machine or archive that wants it clean, or a viewer that must be able to draw it."""

    CLEAN = "clean"
    OHIF = "ohif"


class SrClass(StrEnum):
    """The report's SOP class."""

    COMPREHENSIVE_3D = "comprehensive-3d"
    COMPREHENSIVE = "comprehensive"


class ScForm(StrEnum):
    """One series of single frames, or one multi-frame true colour object."""

    SINGLE_FRAMES = "single-frames"
    MULTI_FRAME = "multi-frame"


class TextPosition(StrEnum):
    """Where captures carry their two lines of text, clear of the viewer's own bars."""

    BOTTOM = "bottom"
    TOP = "top"


class CharacterSet(StrEnum):
    """Of patient and study text: the source's own bytes, or UTF-8 for all."""

    SOURCE = "source"
    UTF_8 = "utf-8"


@dataclass(frozen=True, slots=True)
class Fallback:
    """What a destination gets in place of the kind in whose form it takes nothing. `form` is one of the kind's."""

    kind: ResultKind
    form: SegForm | SrClass | ScForm


@dataclass(frozen=True, slots=True)
class Profile:
    """Which objects a destination gets, in which form.

    kinds: in any order; what the route does not ask for is not made. max_segments, max_frames: of one segmentation instance.
    seg_on_projections: whether radiographs get a segmentation; else the report says that none is shown.
    library_images: most images in the report's image library (TID 1600); key images come first.
    fallbacks: at most one a kind, for classes that the destination refuses in negotiation or by status 0122.
    rejection_note: code of PS3.16 CID 7011 under which results that a newer version replaced are withdrawn there; "": they are
    not. Results older than rejection_within_h only where an operator asked for the new version.
    """

    name: str
    kinds: tuple[ResultKind, ...] = DICOM_KINDS
    seg_form: SegForm = SegForm.BINARY
    max_segments: int = 200
    max_frames: int = 5000
    over_limit: OverLimit = OverLimit.SPLIT
    keep_empty_frames: bool = False
    without_frame_of_reference: WithoutFrameOfReference = WithoutFrameOfReference.DERIVATION
    seg_on_projections: bool = True
    sr_form: SrForm = SrForm.CLEAN
    sr_class: SrClass = SrClass.COMPREHENSIVE_3D
    library_images: int = 32
    sc_form: ScForm = ScForm.SINGLE_FRAMES
    text_position: TextPosition = TextPosition.BOTTOM
    character_set: CharacterSet = CharacterSet.SOURCE
    fallbacks: tuple[Fallback, ...] = ()
    rejection_note: str = ""
    rejection_within_h: float = 24.0

    def without_fallbacks(self) -> "Profile":
        """For where nothing is refused, such as a folder."""
        return replace(self, fallbacks=())

    def like(self, name: str, **otherwise: Any) -> "Profile":
        """A profile of this name that differs in these fields."""
        return replace(self, name=name, **otherwise)

    def after(self, fallback: Fallback) -> "Profile":
        """The same profile with one kind in its other form."""
        match fallback.form:
            case SegForm():
                return replace(self, seg_form=fallback.form)
            case SrClass():
                return replace(self, sr_class=fallback.form)
            case ScForm():
                return replace(self, sc_form=fallback.form)


SHIPPED: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        # OHIF 3.13 opens a segmentation of a radiograph with a black page; its report and captures carry the outlines.
        Profile("ohif", sr_form=SrForm.OHIF, seg_on_projections=False),
        Profile("archive", fallbacks=(Fallback(ResultKind.SR, SrClass.COMPREHENSIVE),)),
        Profile("sc-only", kinds=(ResultKind.SC,)),
        Profile("fhir", kinds=(ResultKind.FHIR,)),
    )
}


def of_kinds(kinds: Iterable[str]) -> tuple[ResultKind, ...]:
    """The kinds of these names, in the order of sending. Raises ValueError for a name that is none."""
    wanted = {ResultKind(kind) for kind in kinds}
    return tuple(kind for kind in ResultKind if kind in wanted)
