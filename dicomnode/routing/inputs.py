"""Which series of a study fills each role of a pipeline that reads several together (four sequences of one brain, say)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode.domain.imaging import RefusalCode
from dicomnode.domain.routes import InputRole, unmet
from dicomnode.registry import SeriesEvidence
from dicomnode.routing.choice import Choice, Loser, ineligible, rank, why_not
from dicomnode.routing.facts import PipelineFacts


@dataclass(frozen=True, slots=True)
class _Fit:
    """The series that may fill a role, best first, and why each other one may not."""

    role: InputRole
    series: tuple[SeriesEvidence, ...]
    unfit: Mapping[int, tuple[RefusalCode, str]]


def choose_inputs(candidates: Sequence[SeriesEvidence], facts: PipelineFacts) -> Choice:
    """One series for each role; `best` is the first role's, `others` are the rest.

    Without one for every role there is no choice. A series fills one role: the role with the fewest series to choose from takes
    first, so that "t1" leaves the contrast-enhanced one, which fits both patterns, to "t1c".
    """
    fits = [_fit(role, candidates, facts) for role in facts.inputs]
    taken: dict[str, SeriesEvidence] = {}
    open_roles = list(fits)
    while open_roles:
        used = {one.series_id for one in taken.values()}
        fit = min(open_roles, key=lambda one: len([series for series in one.series if series.series_id not in used]))
        open_roles.remove(fit)
        free = [one for one in fit.series if one.series_id not in used]
        if free:
            taken[fit.role.name] = _with_the_same_frame(free, taken)
    missing = tuple(fit.role for fit in fits if fit.role.name not in taken)
    if missing:
        losers = tuple(_loser_without(one, fits, missing) for one in candidates)
        return Choice(None, "a series is missing", (), losers, missing=tuple(role.name for role in missing))
    role_of = {series.series_id: name for name, series in taken.items()}
    best = taken[facts.inputs[0].name]
    losers = tuple(_loser(one, fits, taken, facts) for one in candidates if one.series_id not in role_of)
    others = {role.name: taken[role.name] for role in facts.inputs[1:]}
    why = f"it is read as {facts.inputs[0].name}, with {', '.join(f'{one.key} as {name}' for name, one in others.items())}"
    return Choice(best, why, (best,), losers, others)


def _fit(role: InputRole, candidates: Sequence[SeriesEvidence], facts: PipelineFacts) -> _Fit:
    unfit = {one.series_id: why for one in candidates if (why := _why_unfit(one, role, facts)) is not None}
    fitting = [one for one in candidates if one.series_id not in unfit]
    return _Fit(role, tuple(sorted(fitting, key=lambda one: rank(one, facts))), unfit)


def _why_unfit(series: SeriesEvidence, role: InputRole, facts: PipelineFacts) -> tuple[RefusalCode, str] | None:
    never = ineligible(series, facts, derived=role.derived)
    if never is not None:
        return never
    unmatched = unmet(role.match, series.attributes)
    return (RefusalCode.NO_ELIGIBLE_SERIES, f"as {role.name}: {unmatched[0]}") if unmatched else None


def _with_the_same_frame(free: Sequence[SeriesEvidence], taken: Mapping[str, SeriesEvidence]) -> SeriesEvidence:
    """The best one that lies in the space of those that were taken: images of another frame of reference are refused later."""
    frames = {frame for one in taken.values() if (frame := one.attributes.get("FrameOfReferenceUID", ""))}
    return min(free, key=lambda one: bool(frames) and one.attributes.get("FrameOfReferenceUID", "") not in frames)


def _loser_without(series: SeriesEvidence, fits: Sequence[_Fit], missing: Sequence[InputRole]) -> Loser:
    names = ", ".join(role.name for role in missing)
    reasons = [fit.unfit[series.series_id][1] for fit in fits if fit.role in missing and series.series_id in fit.unfit]
    why = f"no series is there to be read as {names}" + (f" (this one: {'; '.join(reasons)})" if reasons else "")
    return Loser(series.series_id, why, RefusalCode.NO_ELIGIBLE_SERIES)


def _loser(series: SeriesEvidence, fits: Sequence[_Fit], taken: Mapping[str, SeriesEvidence], facts: PipelineFacts) -> Loser:
    fitting = [fit for fit in fits if series.series_id not in fit.unfit]
    if not fitting:
        codes = {fit.unfit[series.series_id][0] for fit in fits}
        why = "; ".join(dict.fromkeys(fit.unfit[series.series_id][1] for fit in fits))
        return Loser(series.series_id, why, codes.pop() if len(codes) == 1 else RefusalCode.NO_ELIGIBLE_SERIES)
    name = fitting[0].role.name
    better = taken[name]
    if rank(series, facts) < rank(better, facts):
        return Loser(series.series_id, f"as {name}: it lies in another frame of reference than the other series")
    return Loser(series.series_id, f"as {name}: {why_not(series, better, facts)}")
