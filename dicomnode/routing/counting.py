"""What a PACS lists of a series, asked for when it falls silent: more than is here is waited for; twice the same is final.

One answer proves little: a PACS that is itself still receiving lists what it has so far. Two equal ones, a quiet period apart,
with all of it here, say that nothing more is on its way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from dicomnode.domain.routes import Route
from dicomnode.domain.states import SeriesState
from dicomnode.registry import Registry, SeriesEvidence, StudyEvidence

# (peer's name, Study Instance UID, Series Instance UIDs) → series → count; nothing for a peer that gives no answer.
type_count = Callable[[str, str, Sequence[str]], Mapping[str, int]]
_KEPT = 4


def with_counts(
    registry: Registry, study: StudyEvidence, routes: Sequence[Route], now: datetime, count: type_count
) -> StudyEvidence:
    """The study with what the PACS lists of its silent series; what is new is kept in the rows."""
    asked: dict[str, list[SeriesEvidence]] = {}
    for one in study.series:
        route = next((route for route in routes if route.count_at and not route.mismatches(one.attributes)), None)
        if route is not None and _is_due(one, route, now):
            asked.setdefault(route.count_at, []).append(one)
    counted: dict[int, SeriesEvidence] = {}
    for peer, series in asked.items():
        listed = count(peer, study.study_instance_uid, [one.series_instance_uid for one in series])
        for one in series:
            if one.series_instance_uid in listed:
                entry = {"at": now.isoformat(), "peer": peer, "count": listed[one.series_instance_uid]}
                counts = [*_entries(one), entry][-_KEPT:]
                registry.keeping.note_counts(one.series_id, counts)
                counted[one.series_id] = replace(one, evidence={**one.evidence, "counts": counts})
    return replace(study, series=tuple(counted.get(one.series_id, one) for one in study.series)) if counted else study


def _is_due(series: SeriesEvidence, route: Route, now: datetime) -> bool:
    if series.state is not SeriesState.ARRIVING or (now - series.last_arrival_at).total_seconds() < route.quiet_s:
        return False
    counts = counts_of(series)
    return not counts or (now - counts[-1][0]).total_seconds() >= route.quiet_s


def _entries(series: SeriesEvidence) -> list[dict[str, object]]:
    stored = series.evidence.get("counts")
    return list(stored) if isinstance(stored, list) else []


def counts_of(series: SeriesEvidence) -> list[tuple[datetime, int]]:
    """When a PACS was asked since the last image came, and how many it listed; oldest first."""
    entries = [(datetime.fromisoformat(str(one["at"])), int(str(one["count"]))) for one in _entries(series)]
    return [(at, number) for at, number in entries if at >= series.last_arrival_at]


def listed_more(series: SeriesEvidence) -> int:
    """How many images the PACS listed last that are not here."""
    counts = counts_of(series)
    return max(counts[-1][1] - series.instances, 0) if counts else 0


def counted_twice(series: SeriesEvidence, quiet_s: float) -> bool:
    """Whether two equal counts, a quiet period apart, say that all is here."""
    equal = [at for at, number in counts_of(series) if number == series.instances]
    return len(equal) >= 2 and (equal[-1] - equal[0]).total_seconds() >= quiet_s
