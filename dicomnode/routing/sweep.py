"""The shell: evidence from the registry, judgement by the pure core, judgement back."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.routes import Route
from dicomnode.registry import Registry, StudyEvidence, StudyJudgement
from dicomnode.routing.facts import PipelineFacts, SweepReport
from dicomnode.routing.judgement import judge


def sweep(registry: Registry, routes: Sequence[Route], now: datetime, *, pipelines: Mapping[str, PipelineFacts]) -> SweepReport:
    """Judge every study in which something arrived: complete series, choose, create jobs, store why. Idempotent."""
    completed: list[str] = []
    forced: list[str] = []
    jobs: list[str] = []
    judged = changed_meanwhile = 0
    for study in registry.studies_to_judge():
        judgement = judge(study, routes, now, pipelines)
        if not (judgement.completions or judgement.jobs or judgement.settled):
            continue
        try:
            jobs += registry.record_judgement(judgement)
        except StaleUpdate:  # an image arrived between reading and writing: the next sweep judges with it
            changed_meanwhile += 1
            continue
        judged += 1
        completed += _keys(study, judgement, forced=False)
        forced += _keys(study, judgement, forced=True)
    return SweepReport(judged, tuple(completed), tuple(forced), tuple(jobs), changed_meanwhile)


def _keys(study: StudyEvidence, judgement: StudyJudgement, *, forced: bool) -> list[str]:
    names = {one.series_id: one.key for one in study.series}
    return [names[one.series_id] for one in judgement.completions if one.complete and one.forced is forced]
