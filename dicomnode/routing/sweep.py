"""The shell: evidence from the registry, judgement by the pure core, judgement back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from dicomnode.domain.errors import DicomNodeError, StaleUpdate
from dicomnode.domain.routes import Route
from dicomnode.domain.states import SeriesState
from dicomnode.registry import Registry, StudyEvidence, StudyJudgement
from dicomnode.routing.counting import type_count, with_counts
from dicomnode.routing.facts import PipelineFacts, SweepReport
from dicomnode.routing.judgement import judge


def sweep(
    registry: Registry,
    routes: Sequence[Route],
    now: datetime,
    *,
    pipelines: Mapping[str, PipelineFacts],
    listening_since: datetime | None = None,
    count: type_count | None = None,
) -> SweepReport:
    """Judge every study in which something arrived: complete series, choose, create jobs, store why. Idempotent.

    listening_since: when the node began to listen. Silence before it proves nothing, for nobody could have been heard: a sender
    that was cut off by a restart gets a whole quiet period to go on. count: asks a peer what it lists. A study that cannot be
    judged, by a defect of ours, stops no other. Raises what the database raises.
    """
    completed: list[str] = []
    forced: list[str] = []
    jobs: list[str] = []
    failed: list[tuple[str, Exception]] = []
    judged = changed_meanwhile = 0
    for study in registry.studies_to_judge():
        try:
            heard = _as_heard(study, listening_since)
            heard = heard if count is None else with_counts(registry, heard, routes, now, count)
            judgement = judge(heard, routes, now, pipelines)
            if not (judgement.completions or judgement.jobs or judgement.settled):
                continue
            jobs += registry.record_judgement(judgement)
        except StaleUpdate:  # an image arrived between reading and writing: the next sweep judges with it
            changed_meanwhile += 1
            continue
        except DicomNodeError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of one study
            failed.append((study.key, error))
            continue
        judged += 1
        completed += _keys(study, judgement, forced=False)
        forced += _keys(study, judgement, forced=True)
    return SweepReport(judged, tuple(completed), tuple(forced), tuple(jobs), changed_meanwhile, tuple(failed))


def _as_heard(study: StudyEvidence, listening_since: datetime | None) -> StudyEvidence:
    """The study with the silence of its arriving series counted from `listening_since` at the earliest."""
    if listening_since is None:
        return study
    series = tuple(
        replace(one, last_arrival_at=max(one.last_arrival_at, listening_since)) if one.state is SeriesState.ARRIVING else one
        for one in study.series
    )
    return replace(study, series=series)


def _keys(study: StudyEvidence, judgement: StudyJudgement, *, forced: bool) -> list[str]:
    names = {one.series_id: one.key for one in study.series}
    return [names[one.series_id] for one in judgement.completions if one.complete and one.forced is forced]
