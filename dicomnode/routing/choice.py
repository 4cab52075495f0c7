"""Which series of a study does a pipeline run on, and why not on the others?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.registry import SeriesEvidence
from dicomnode.routing.facts import PipelineFacts
from dicomnode.routing.kernels import Sharpness, sharpness

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame family below it
# Values of Image Type (0008,0008) that name something computed from the scan (PS3.3 C.7.6.1.1.2, C.8.2.1.1.1).
_COMPUTED = ("REFORMATTED", "MPR", "MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "CSA MPR", "VRT", "SCREEN SAVE")
# Below this a slice is noise: micro-CT, or a wrong unit.
_ABSURDLY_THIN_MM = 0.4
# Slices within one class are equally good for the choice; then the kernel decides.
_THICKNESS_CLASSES_MM = (1.5, 3.0, 5.0)
_AXIAL_COSINE = 0.8


@dataclass(frozen=True, slots=True)
class Loser:
    """A series that matched and was not chosen. `code`: why it can never be; None if it only was not the best."""

    series_id: int
    why: str
    code: RefusalCode | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The best series (None: none was eligible), the eligible ones in order, and a reason for each loser."""

    best: SeriesEvidence | None
    why: str
    eligible: tuple[SeriesEvidence, ...]
    losers: tuple[Loser, ...]
    others: Mapping[str, SeriesEvidence] = field(default_factory=dict)  # by role, of a pipeline that reads several series
    missing: tuple[str, ...] = ()  # roles that no series can fill


def choose_series(candidates: Sequence[SeriesEvidence], facts: PipelineFacts) -> Choice:
    """The best of the series that a route matches."""
    unfit = {one.series_id: why for one in candidates if (why := ineligible(one, facts)) is not None}
    eligible = sorted((one for one in candidates if one.series_id not in unfit), key=lambda one: rank(one, facts))
    losers = [Loser(series_id, why, code) for series_id, (code, why) in unfit.items()]
    if not eligible:
        return Choice(None, "no series is eligible", (), tuple(losers))
    best = eligible[0]
    losers += [Loser(one.series_id, why_not(one, best, facts)) for one in eligible[1:]]
    return Choice(best, _why(best, len(eligible), len(candidates)), tuple(eligible), tuple(losers))


def ineligible(series: SeriesEvidence, facts: PipelineFacts, *, derived: bool = False) -> tuple[RefusalCode, str] | None:
    """Why the pipeline can never run on this series; None if it can. derived: what was computed from a scan will do.

    An absent Image Type says nothing against a series. A series with several Image Types is judged by the most frequent one.
    """
    if series.purged:
        missing = "one of its images was" if series.purged == 1 else f"{series.purged} of its images were"
        return RefusalCode.NO_ELIGIBLE_SERIES, f"{missing} purged before these came: send the whole series again"
    values = _image_type(series)
    if "LOCALIZER" in values:
        return RefusalCode.LOCALIZER, "it is a localizer"
    if facts.min_slices > 1 and (series.sop_class_uid + ".").startswith(_SECONDARY_CAPTURE + "."):
        return RefusalCode.UNSUPPORTED_CLASS, "it holds secondary captures, not the scan"
    computed = next((value for value in values if value in _COMPUTED), None)
    if not derived and (computed is not None or values[:1] == ("DERIVED",) or values[1:2] == ("SECONDARY",)):
        kind = "\\".join(values)
        return RefusalCode.NO_ELIGIBLE_SERIES, f"it is derived or reformatted (Image Type {kind})"
    if series.slices < facts.min_slices:
        count = "1 slice" if series.slices == 1 else f"{series.slices} slices"
        return RefusalCode.TOO_FEW, f"it has {count}, the pipeline needs {facts.min_slices}"
    return None


def refusal(candidates: Sequence[SeriesEvidence], choice: Choice, route: str) -> Refusal:
    """The one "not run" of a study in which a route matched series, but none that can be used."""
    codes = {loser.code for loser in choice.losers if loser.code is not None}
    code = codes.pop() if len(codes) == 1 else RefusalCode.NO_ELIGIBLE_SERIES
    names = {one.series_id: one.attributes.get("SeriesNumber", "").strip() or one.key for one in candidates}
    reasons = "; ".join(f"series {names[loser.series_id]}: {loser.why}" for loser in choice.losers)
    if choice.missing:
        missing = ", ".join(choice.missing)
        remedy = f"send them, or change [[inputs]] of the pipeline or the match of route {route}"
        return Refusal(code, f"the pipeline reads several series together; missing: {missing} ({reasons})", remedy)
    return Refusal(
        code,
        f"no series can be used ({reasons})",
        f"send the original thin-slice series of the study, or change the match of route {route}",
    )


def _image_type(series: SeriesEvidence) -> tuple[str, ...]:
    if not series.image_types:
        return ()
    text = max(series.image_types, key=lambda one: (series.image_types[one], one))
    return tuple(value.strip().upper() for value in text.split("\\")) if text.strip() else ()


@dataclass(frozen=True, slots=True)
class _Criterion:
    """One step of the ranking (lowest first), and what to say of a loser that this step decided."""

    value: Callable[[SeriesEvidence], Any]
    sentence: Callable[[SeriesEvidence, SeriesEvidence], str]


def _criteria(facts: PipelineFacts) -> tuple[_Criterion, ...]:
    """In falling weight: orientation, thickness class, kernel, thickness, number of slices, series number."""
    kernel = _Criterion(
        lambda one: sharpness(_kernel(one)),
        lambda loser, best: f"its kernel {_kernel_words(loser)} suits less than {_kernel_words(best)} of {best.key}",
    )
    thickness = "its slices ({}) suit less than those of {} ({})"
    return (
        _Criterion(lambda one: not _is_axial(one), lambda _, best: f"it is not axial, as {best.key} is"),
        _Criterion(
            lambda one: _thickness_class(_thickness_mm(one)),
            lambda loser, best: thickness.format(_thickness_words(loser), best.key, _thickness_words(best)),
        ),
        *((kernel,) if facts.prefer_soft_kernel else ()),
        _Criterion(
            lambda one: _thickness_mm(one) or 0.0,
            lambda loser, best: thickness.format(_thickness_words(loser), best.key, _thickness_words(best)),
        ),
        _Criterion(
            lambda one: -one.slices,
            lambda loser, best: f"it has fewer slices ({loser.slices}) than {best.key} ({best.slices})",
        ),
        _Criterion(_series_number, lambda _, best: f"{best.key} is as good and has the lower series number"),
        _Criterion(lambda one: one.series_id, lambda _, best: f"{best.key} is as good and arrived first"),
    )


def rank(series: SeriesEvidence, facts: PipelineFacts) -> tuple[Any, ...]:
    """What eligible series are ordered by, best first."""
    return tuple(criterion.value(series) for criterion in _criteria(facts))


def why_not(loser: SeriesEvidence, best: SeriesEvidence, facts: PipelineFacts) -> str:
    """The first step of the ranking in which the loser is behind the best."""
    deciding = next(one for one in _criteria(facts) if one.value(loser) != one.value(best))
    return deciding.sentence(loser, best)


def _why(best: SeriesEvidence, eligible: int, matching: int) -> str:
    kernel = f", kernel {_kernel_words(best)}" if _kernel(best) else ""
    facts = f"{best.slices} slices of {_thickness_words(best)}{kernel}"
    if matching == 1:
        return f"it is the only series that matches ({facts})"
    if eligible == 1:
        return f"it is the only eligible one of {matching} that match ({facts})"
    return f"it is the best of {eligible} eligible series ({facts})"


def _kernel(series: SeriesEvidence) -> str:
    return series.attributes.get("ConvolutionKernel", "").strip()


def _kernel_words(series: SeriesEvidence) -> str:
    name = _kernel(series)
    if not name:
        return "(not stated)"
    words = {Sharpness.SOFT: "soft", Sharpness.SHARP: "sharp", Sharpness.UNKNOWN: "of unknown sharpness"}
    return f"{name} ({words[sharpness(name)]})"


def _thickness_mm(series: SeriesEvidence) -> float | None:
    try:
        value = float(series.attributes.get("SliceThickness", ""))
    except ValueError:
        return None
    return value if value > 0 else None


def _thickness_words(series: SeriesEvidence) -> str:
    value = _thickness_mm(series)
    return "unknown thickness" if value is None else f"{value:g} mm"


def _thickness_class(value: float | None) -> int:
    if value is None or value < _ABSURDLY_THIN_MM:
        return len(_THICKNESS_CLASSES_MM)
    return sum(value > limit for limit in _THICKNESS_CLASSES_MM)


def _is_axial(series: SeriesEvidence) -> bool:
    """Whether the normal of the slices runs along the body (PS3.3 C.7.6.2.1.1); true where the orientation is not stated."""
    try:
        row_x, row_y, _, column_x, column_y, _ = (
            float(value) for value in series.attributes.get("ImageOrientationPatient", "").split("\\")
        )
    except ValueError:
        return True
    return abs(row_x * column_y - row_y * column_x) >= _AXIAL_COSINE


def _series_number(series: SeriesEvidence) -> int:
    try:
        return int(series.attributes.get("SeriesNumber", ""))
    except ValueError:
        return 2**31
