"""The shell: evidence from the registry, judgement by the pure core, judgement back."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from dicomnode.domain.errors import DicomNodeError, StaleUpdate
from dicomnode.domain.routes import Route
from dicomnode.registry import Registry, StudyEvidence, StudyJudgement
from dicomnode.routing.counting import type_count, with_counts
from dicomnode.routing.facts import PipelineFacts, SweepReport
from dicomnode.routing.judgement import judge
from dicomnode.routing.watch import Watch


def sweep(
    registry: Registry,
    routes: Sequence[Route],
    now: datetime,
    *,
    pipelines: Mapping[str, PipelineFacts],
    watch: Watch | None = None,
    count: type_count | None = None,
) -> SweepReport:
    """Judge every study in which something arrived: complete series, choose, create jobs, store why. Idempotent.

    watch: measures silence since the node began to listen, the same one in each sweep: a sender that was cut off by a restart
    gets a whole quiet period to go on, and a clock that is set changes nothing. Without one the rows' times count.
    count: asks a peer what it lists. A study that cannot be judged, by a defect of ours, stops no other. Raises what the
    database raises.
    """
    completed: list[str] = []
    forced: list[str] = []
    jobs: list[str] = []
    failed: list[tuple[str, Exception]] = []
    judged = changed_meanwhile = 0
    studies = registry.studies_to_judge()
    for study in studies if watch is None else watch.heard(studies, now):
        try:
            heard = study if count is None else with_counts(registry, study, routes, now, count)
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


def _keys(study: StudyEvidence, judgement: StudyJudgement, *, forced: bool) -> list[str]:
    names = {one.series_id: one.key for one in study.series}
    return [names[one.series_id] for one in judgement.completions if one.complete and one.forced is forced]
