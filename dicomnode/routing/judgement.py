"""The pure core: evidence and routes in, judgement out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dicomnode.domain.canary import CANARY_AE_TITLE
from dicomnode.domain.imaging import Refusal
from dicomnode.domain.routes import Route
from dicomnode.domain.states import JobState, SeriesState
from dicomnode.registry import (
    JobInput,
    JobSummary,
    PlannedJob,
    SeriesCompletion,
    SeriesEvidence,
    SeriesVerdict,
    StudyEvidence,
    StudyJudgement,
)
from dicomnode.routing.choice import Choice, choose_series, refusal
from dicomnode.routing.completeness import Completeness, DefaultPatience, gather, is_complete
from dicomnode.routing.facts import PipelineFacts, is_no_image
from dicomnode.routing.inputs import choose_inputs


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a route wants of a study that is complete for it."""

    jobs: tuple[PlannedJob, ...]
    words: Mapping[int, tuple[bool, str]]  # series → chosen, why


def judge(
    study: StudyEvidence, routes: Sequence[Route], now: datetime, pipelines: Mapping[str, PipelineFacts]
) -> StudyJudgement:
    """All that can be said of the study now. Nothing new to write gives a judgement without completions, verdicts and jobs."""
    routes = [route for route in routes if route.canary == _is_canary(study)]
    mismatches = {(one.series_id, route.name): _mismatches(one, route) for one in study.series for route in routes}
    matching = {route.name: [one for one in study.series if not mismatches[one.series_id, route.name]] for route in routes}
    waits = {route.name: _wait(study, matching[route.name], route, now) for route in routes if matching[route.name]}
    completions = tuple(completion for one in study.series for completion in _completion(study, one, matching, waits, now))
    complete = {one.series_id for one in study.series if one.state is SeriesState.COMPLETE}
    complete |= {one.series_id for one in completions if one.complete}
    plans = _plans(study, routes, matching, complete, waits, pipelines)
    settled = len(complete) == len(study.series) and all(wait.complete for wait in waits.values())
    jobs = tuple(job for plan in plans.values() for job in plan.jobs)
    changed = settled or bool(jobs) or any(one.complete for one in completions)
    verdicts = tuple(
        _verdict(one, route, mismatches[one.series_id, route.name], plans.get(route.name))
        for one in study.series
        for route in routes
        if changed and one.series_id in complete
    )
    return StudyJudgement(study.study_id, study.arrivals, completions, verdicts, jobs, settled)


def _is_canary(study: StudyEvidence) -> bool:
    """The node's own phantom goes through its own route and no other, and nobody else's study goes through that."""
    return any(one.attributes.get("CallingAETitle") == CANARY_AE_TITLE for one in study.series)


def _mismatches(series: SeriesEvidence, route: Route) -> tuple[str, ...]:
    if is_no_image(series.sop_class_uid):
        return ("it holds no images",)
    if not series.instances:
        return ("all its images were rejected, or lost before they were acknowledged",)
    found = route.mismatches(series.attributes)
    called = series.attributes.get("CalledAETitle", "")
    if route.called_ae and not set(called.split("\\")) & set(route.called_ae):
        found = (*found, f"it was sent to {called}, wanted {' or '.join(route.called_ae)}")
    return found


def _wait(study: StudyEvidence, matching: Sequence[SeriesEvidence], route: Route, now: datetime) -> Completeness:
    heard = [_as_it_came_to(route, one) for one in matching]
    later = [one for one, before in zip(heard, matching, strict=True) if one is not before]
    if all(one.state is SeriesState.COMPLETE for one in matching):
        # What is complete came long ago; the route's own title may still receive it.
        return is_complete(gather(later, study.associations, route.quiet_s), route, now) if later else Completeness(True)
    return is_complete(gather(heard, study.associations, route.quiet_s, study.announced), route, now)


def _as_it_came_to(route: Route, series: SeriesEvidence) -> SeriesEvidence:
    """The series as the titles saw it under which the route takes it: itself, if the first one is among them."""
    first, *further = series.attributes.get("CalledAETitle", "").split("\\")
    if not further or not _mismatches(_called(series, first), route):
        return series
    times = [series.also_called[title] for title in further if not _mismatches(_called(series, title), route)]
    if not times:
        return series
    opened_at, last = min(times, key=lambda first_and_last: first_and_last[1])
    return replace(series, opened_at=opened_at, last_arrival_at=max(last, series.last_arrival_at))


def _called(series: SeriesEvidence, title: str) -> SeriesEvidence:
    return replace(series, attributes={**series.attributes, "CalledAETitle": title})


def _completion(
    study: StudyEvidence,
    series: SeriesEvidence,
    matching: Mapping[str, Sequence[SeriesEvidence]],
    waits: Mapping[str, Completeness],
    now: datetime,
) -> Sequence[SeriesCompletion]:
    """The completion of an arriving series; an incomplete one only where it waits for something else than was stored."""
    if series.state is SeriesState.COMPLETE:
        return ()
    of_routes = [wait for name, wait in waits.items() if series in matching[name]]
    alone = gather([series], study.associations, announced=study.announced)
    judged = of_routes or [is_complete(alone, DefaultPatience(), now)]
    waiting = next((wait for wait in judged if not wait.complete), None)
    evidence: dict[str, object] = {"missing_numbers": alone.missing_numbers}
    if (counted := study.announced.series.get(series.series_instance_uid)) is not None:
        evidence |= {"announced_by_others": counted.instances, "announced_missing": counted.missing}
    if "counts" in series.evidence:
        evidence["counts"] = series.evidence["counts"]
    if waiting is not None:
        evidence["waits_for"] = waiting.waits_for
        if waiting.at_most_s:
            evidence["waits_at_most_s"] = waiting.at_most_s
        same = dict(series.evidence) == evidence
        return () if same else (SeriesCompletion(series.series_id, complete=False, forced=False, evidence=evidence),)
    forced = any(wait.forced for wait in judged)
    # Of several routes the most patient one decided; a forced one says most.
    said = max(judged, key=lambda wait: (wait.forced, len(wait.why)))
    evidence["why"] = said.why
    evidence["waited_s"] = round((now - series.opened_at).total_seconds(), 1)
    return (SeriesCompletion(series.series_id, complete=True, forced=forced, evidence=evidence),)


def _plans(
    study: StudyEvidence,
    routes: Sequence[Route],
    matching: Mapping[str, Sequence[SeriesEvidence]],
    complete: set[int],
    waits: Mapping[str, Completeness],
    pipelines: Mapping[str, PipelineFacts],
) -> dict[str, _Plan]:
    """The plan of each route that can decide now: all series of the study that match it are complete (`_wait`)."""
    plans: dict[str, _Plan] = {}
    taken: dict[str, str] = {}  # pipeline → the first route that matches: one set of results for study and pipeline
    for route in routes:
        candidates = matching[route.name]
        if not candidates:
            continue
        first = taken.setdefault(route.pipeline, route.name)
        if any(one.series_id not in complete for one in candidates) or not waits[route.name].complete:
            continue
        if first != route.name:
            why = f"route {first} comes first and runs the same pipeline"
            plans[route.name] = _Plan((), {one.series_id: (False, why) for one in candidates})
            continue
        facts = pipelines.get(route.pipeline, PipelineFacts(route.pipeline))
        choose = choose_inputs if facts.inputs else choose_series
        plans[route.name] = _plan(study, route, candidates, choose(candidates, facts))
    return plans


def _plan(study: StudyEvidence, route: Route, candidates: Sequence[SeriesEvidence], choice: Choice) -> _Plan:
    words = {loser.series_id: (False, loser.why) for loser in choice.losers}
    if choice.best is None:
        return _Plan(_not_run(study, route, candidates, refusal(candidates, choice, route.name)), words)
    if route.select == "each" and not choice.others:
        words |= {one.series_id: (True, "the route takes each eligible series") for one in choice.eligible}
        jobs = [job for one in choice.eligible for job in _run(study, route, one, scope_series_id=one.series_id)]
        return _Plan(tuple(jobs), words)
    words[choice.best.series_id] = (True, choice.why)
    words |= {one.series_id: (True, f"it is read as {role}") for role, one in choice.others.items()}
    others = tuple(JobInput(role, one.series_id, one.generation) for role, one in choice.others.items())
    return _Plan(_run(study, route, choice.best, scope_series_id=0, others=others), words)


def _standing(study: StudyEvidence, pipeline: str, scope_series_id: int) -> JobSummary | None:
    """The newest version, unless another has taken its place already."""
    jobs = [job for job in study.jobs if job.pipeline == pipeline and job.scope_series_id == scope_series_id]
    newest = max(jobs, key=lambda job: job.version, default=None)
    return None if newest is None or newest.state is JobState.SUPERSEDED else newest


def _run(
    study: StudyEvidence, route: Route, series: SeriesEvidence, *, scope_series_id: int, others: tuple[JobInput, ...] = ()
) -> tuple[PlannedJob, ...]:
    """A job over this series and `others`, unless one stands that ran or will run over exactly what is there now."""
    standing = _standing(study, route.pipeline, scope_series_id)
    not_run = _standing(study, route.pipeline, 0)
    replaced = {job.id for job in (standing, not_run) if job is not None and (job is standing or job.preset_refusal)}
    if standing is not None:
        read = (standing.series_id, standing.series_generation, standing.others)
        same_input = read == (series.series_id, series.generation, others)
        if standing.state is JobState.CANCELLED or (same_input and not standing.preset_refusal):
            return ()
    return (replace(_planned(route, series, scope_series_id, None, tuple(sorted(replaced))), others=others),)


def _not_run(study: StudyEvidence, route: Route, candidates: Sequence[SeriesEvidence], why: Refusal) -> tuple[PlannedJob, ...]:
    """One job that says "not run". Said once; what an operator cancelled, or what ran over the same images, stands."""
    standing = _standing(study, route.pipeline, 0)
    if standing is not None:
        unchanged = any(
            (standing.series_id, standing.series_generation) == (one.series_id, one.generation) for one in candidates
        )
        if standing.state is JobState.CANCELLED or standing.preset_refusal or unchanged:
            return ()
    speaker = max(candidates, key=lambda one: (one.slices, -one.series_id))
    return (_planned(route, speaker, 0, why, () if standing is None else (standing.id,)),)


def _planned(
    route: Route, series: SeriesEvidence, scope_series_id: int, why: Refusal | None, replaces: tuple[int, ...]
) -> PlannedJob:
    return PlannedJob(
        route.name,
        route.pipeline,
        series.series_id,
        series.generation,
        scope_series_id,
        why,
        replaces,
        priority=route.priority,
    )


def _verdict(series: SeriesEvidence, route: Route, mismatches: Sequence[str], plan: _Plan | None) -> SeriesVerdict:
    if mismatches:
        return SeriesVerdict(series.series_id, route.name, matched=False, chosen=False, why="; ".join(mismatches))
    if plan is None:
        why = "the other series of the study that match are not complete yet"
        return SeriesVerdict(series.series_id, route.name, matched=True, chosen=False, why=why)
    chosen, why = plan.words[series.series_id]
    return SeriesVerdict(series.series_id, route.name, matched=True, chosen=chosen, why=why)
