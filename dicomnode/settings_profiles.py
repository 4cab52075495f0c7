"""Destination profiles of the settings file: one of the shipped ones with some things otherwise."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dicomnode.domain.profiles import (
    SHIPPED,
    CharacterSet,
    Fallback,
    OverLimit,
    Profile,
    ResultKind,
    ScForm,
    SegForm,
    SrClass,
    SrForm,
    TextPosition,
    WithoutFrameOfReference,
    of_kinds,
)

Limit = Annotated[int, Field(ge=1, le=65535)]


class Fallbacks(BaseModel):
    """What goes in place of a kind whose class the destination refuses, by kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    SEG: SegForm | None = None
    SR: SrClass | None = None
    SC: ScForm | None = None


class ProfileSettings(BaseModel):
    """What a destination gets, in which form. What is not named is as in the profile `like`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    like: str = "archive"
    kinds: tuple[ResultKind, ...] | None = None
    seg_form: SegForm | None = None
    max_segments: Limit | None = None
    max_frames: Limit | None = None
    over_limit: OverLimit | None = None
    keep_empty_frames: bool | None = None
    without_frame_of_reference: WithoutFrameOfReference | None = None
    seg_on_projections: bool | None = None
    sr_form: SrForm | None = None
    sr_class: SrClass | None = None
    library_images: Annotated[int, Field(ge=0, le=10000)] | None = None
    sc_form: ScForm | None = None
    text_position: TextPosition | None = None
    character_set: CharacterSet | None = None
    fallbacks: Fallbacks | None = None
    rejection_note: Literal["", "113001", "113037", "113038", "113039"] | None = None
    rejection_within_h: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


def profiles_of(tables: tuple[ProfileSettings, ...]) -> dict[str, Profile]:
    """The shipped profiles and those of the settings, by name; `like` names a shipped one or one that stands before."""
    found = dict(SHIPPED)
    for one in tables:
        given: dict[str, Any] = {key: getattr(one, key) for key in one.model_fields_set - {"like", "name"}}
        given = {key: value for key, value in given.items() if value is not None}
        if "kinds" in given:
            given["kinds"] = of_kinds(given["kinds"])
        if one.fallbacks is not None:
            forms = ((ResultKind(key), getattr(one.fallbacks, key)) for key in Fallbacks.model_fields)
            given["fallbacks"] = tuple(Fallback(kind, form) for kind, form in forms if form is not None)
        found[one.name] = found[one.like].like(one.name, **given)
    return found
