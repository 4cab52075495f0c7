"""How long is it silent, and how long has it been waited for? By a clock that nobody sets.

Rows hold the machine's time, which NTP or a hand may set by an hour in the middle of a series: taken at its word, half a study
would be complete at once, or be waited for until the clock has caught up. So the times of rows only tell what changed since the
last look; how long ago that was is counted by the monotonic clock. Silence before the first look proves nothing, for nobody
could have been heard: the quiet period and the longest wait count from there (decisions 4 and 23).
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dicomnode.domain.states import SeriesState
from dicomnode.registry import AssociationEvidence, SeriesEvidence, StudyEvidence

JUMP_S = 1.0  # NTP slews less than this between two looks

type_thing = tuple[str, object]
type_mark = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    mark: type_mark
    since: float  # monotonic


class Watch:
    """`heard` once a sweep, with all studies that are to be judged."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Made when the node begins to listen."""
        self._monotonic = monotonic
        self._last_look = monotonic()
        self._offset: float | None = None  # of the machine's time from ours
        self._seen: dict[type_thing, _Seen] = {}
        self._looked_at: set[type_thing] = set()
        self._void: dict[int, set[str]] = {}  # series → counts that were taken by a clock that was set since

    def heard(self, studies: Sequence[StudyEvidence], now: datetime) -> list[StudyEvidence]:
        """The same with times that lie as long before `now` as it truly is."""
        tick, self._looked_at = self._monotonic(), set()
        if self._jumped(tick, now):
            for one in (one for study in studies for one in study.series):
                self._void.setdefault(one.series_id, set()).update(str(entry["at"]) for entry in _counts(one))
        found = [
            replace(
                study,
                series=tuple(self._series(one, tick, now) for one in study.series),
                associations=tuple(self._association(one, tick, now) for one in study.associations),
            )
            for study in studies
        ]
        self._seen = {thing: seen for thing, seen in self._seen.items() if thing in self._looked_at}
        here = {one.series_id for study in studies for one in study.series}
        self._void = {series_id: void for series_id, void in self._void.items() if series_id in here}
        self._last_look = tick
        return found

    def _jumped(self, tick: float, now: datetime) -> bool:
        before, self._offset = self._offset, now.timestamp() - tick
        return before is not None and abs(self._offset - before) > JUMP_S

    def _series(self, one: SeriesEvidence, tick: float, now: datetime) -> SeriesEvidence:
        also_called = {
            title: (
                self._when(("title opened", (one.series_id, title)), (), first, tick, now),
                self._when(("title", (one.series_id, title)), (last,), last, tick, now),
            )
            for title, (first, last) in one.also_called.items()
        }
        one = replace(one, also_called=also_called, evidence=self._believed(one, now))
        if one.state is not SeriesState.ARRIVING:
            return one
        mark = (one.generation, one.instances, one.last_arrival_at)
        return replace(
            one,
            opened_at=self._when(("opened", (one.series_id, one.generation)), (), one.opened_at, tick, now),
            last_arrival_at=self._when(("series", one.series_id), mark, one.last_arrival_at, tick, now),
        )

    def _association(self, one: AssociationEvidence, tick: float, now: datetime) -> AssociationEvidence:
        mark = (one.last_active_at, one.sent_nothing_yet)
        return replace(one, last_active_at=self._when(("association", one.key), mark, one.last_active_at, tick, now))

    def _when(self, thing: type_thing, mark: type_mark, at: datetime, tick: float, now: datetime) -> datetime:
        """When it happened, by our clock: as the rows say, but not before the last look, which saw another mark."""
        self._looked_at.add(thing)
        seen = self._seen.get(thing)
        if seen is None or seen.mark != mark:
            ago_s = min(max((now - at).total_seconds(), 0.0), tick - self._last_look)
            seen = self._seen[thing] = _Seen(mark, tick - ago_s)
        return now - timedelta(seconds=tick - seen.since)

    def _believed(self, one: SeriesEvidence, now: datetime) -> Mapping[str, object]:
        """The evidence without counts of a PACS that another time was written to."""
        void = self._void.get(one.series_id, set())
        counts = [entry for entry in _counts(one) if str(entry["at"]) not in void and _time(entry) <= now]
        return {**one.evidence, "counts": counts} if len(counts) < len(list(_counts(one))) else one.evidence


def _counts(one: SeriesEvidence) -> Iterable[Mapping[str, object]]:
    stored = one.evidence.get("counts")
    return stored if isinstance(stored, list) else ()


def _time(entry: Mapping[str, object]) -> datetime:
    return datetime.fromisoformat(str(entry["at"]))
