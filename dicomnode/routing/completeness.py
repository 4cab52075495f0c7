"""Is more to come? Judged from evidence alone, so that a restart of the node takes up the wait where it was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from dicomnode.domain.announcements import AnnouncementKind
from dicomnode.registry import Announced, AnnouncedSeries, AssociationEvidence, SeriesEvidence
from dicomnode.routing.counting import counted_twice, listed_more
from dicomnode.routing.facts import is_no_image

# A gap in InstanceNumber may be a slice that is still on its way, or one that the modality never sends: it lengthens, no more.
GAP_FACTOR = 3.0
# With a final count and no association open half of the silence will do: another association may still follow.
FINAL_COUNT_FACTOR = 0.5
NOTHING_ANNOUNCED = Announced()
_ANNOUNCERS = {
    AnnouncementKind.STEP: "the modality's procedure step (MPPS)",
    AnnouncementKind.AVAILABILITY: "the archive's notification (IAN)",
}
# An open association that brought nothing for so many quiet periods is idle, not sending; some senders keep theirs for hours.
IDLE_FACTOR = 3.0
SHORTEST_IDLE_S = 30.0


class Patience(Protocol):
    """How long to wait: a `Route`, or what stands in for one where none matches."""

    @property
    def quiet_s(self) -> float:
        """Seconds of silence after which a series counts as complete."""

    @property
    def max_wait_s(self) -> float:
        """Seconds after which it is complete by force."""


@dataclass(frozen=True, slots=True)
class DefaultPatience:
    """For series that no route matches: nothing is run on them, so nobody waits for them."""

    quiet_s: float = 10.0
    max_wait_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The evidence on the series that one route looks at, taken together.

    opened_at: first arrival since the earliest of them was opened or reopened. missing_numbers: how many InstanceNumbers
    between the lowest and the highest did not arrive. final_count: the source told how many instances each series has, and
    they are here. listed_more: images that a PACS lists and that are not here; counted_twice: it listed what is here, twice, a
    quiet period apart. announced_missing: images that were announced (MPPS, IAN) and did not come; whole: exactly what was
    announced of each of the series is here. announced_by: who said so, for people. to_come: what was announced beside them, in
    words.
    """

    opened_at: datetime
    last_arrival_at: datetime
    missing_numbers: int
    final_count: bool
    associations: tuple[AssociationEvidence, ...]
    listed_more: int = 0
    counted_twice: bool = False
    announced_missing: int = 0
    whole: bool = False
    announced_by: str = ""
    to_come: str = ""


@dataclass(frozen=True, slots=True)
class Completeness:
    """The judgement, and in words why, or what is still waited for; at_most_s: for how long, where silence would not end it."""

    complete: bool
    forced: bool = False
    why: str = ""
    waits_for: str = ""
    at_most_s: float = 0.0


def gather(
    series: Sequence[SeriesEvidence],
    associations: Sequence[AssociationEvidence],
    quiet_s: float = 0.0,
    announced: Announced = NOTHING_ANNOUNCED,
) -> Arrivals:
    """The evidence of several series as one: the quiet period counts over all series of the study that a route matches."""
    arriving = [one for one in series if one.state == "arriving"] or list(series)
    said = [(one, announced.series.get(one.series_instance_uid)) for one in arriving]
    to_come = _to_come(announced)
    return Arrivals(
        opened_at=min(one.opened_at for one in arriving),
        last_arrival_at=max(one.last_arrival_at for one in series),
        missing_numbers=sum(_missing(one.instance_numbers) for one in arriving),
        final_count=all(one.announced is not None and one.announced == one.instances for one in arriving),
        associations=tuple(associations),
        listed_more=sum(listed_more(one) for one in arriving),
        counted_twice=quiet_s > 0 and all(counted_twice(one, quiet_s) for one in arriving),
        announced_missing=sum(of_series.missing for _, of_series in said if of_series is not None),
        whole=not to_come and all(_is_whole(one, of_series) for one, of_series in said),
        announced_by=_by(of_series for _, of_series in said if of_series is not None),
        to_come=to_come,
    )


def _is_whole(series: SeriesEvidence, said: AnnouncedSeries | None) -> bool:
    # With more here than was announced the announcement was not final, whatever it said.
    return said is not None and not said.missing and series.instances <= said.instances


def _by(said: Iterable[AnnouncedSeries]) -> str:
    kinds = {kind for one in said for kind in one.kinds}
    return " and ".join(words for kind, words in _ANNOUNCERS.items() if kind in kinds)


def _to_come(announced: Announced) -> str:
    """What is announced of the study beside the series that are here; "" for nothing. Reports and the like are no images."""
    if announced.in_progress:
        return "a procedure step is still in progress"
    absent = sum(not all(map(is_no_image, classes)) for classes in announced.absent.values())
    if not absent:
        return ""
    return "another series was announced" if absent == 1 else f"{absent} other series were announced"


def _missing(numbers: Sequence[int]) -> int:
    return max(numbers) - min(numbers) + 1 - len(set(numbers)) if numbers else 0


def is_complete(evidence: Arrivals, route: Patience, now: datetime) -> Completeness:
    """Complete after the quiet period; an association that still sends holds it open, the route's maximum forces it."""
    quiet_s, kind = _quiet(evidence, route)
    silent_s = (now - evidence.last_arrival_at).total_seconds()
    sending = [one.key for one in evidence.associations if _still_sends(one, route, now)]
    if evidence.whole and not sending and not evidence.listed_more:
        return Completeness(True, why=f"all images that {evidence.announced_by} named are here")
    if evidence.counted_twice and not sending and not evidence.announced_missing:
        return Completeness(True, why=f"the PACS listed what is here twice, {route.quiet_s:g} s apart")
    if silent_s >= quiet_s and not sending and not evidence.listed_more and not evidence.announced_missing:
        return Completeness(True, why=f"nothing arrived for {quiet_s:g} s{kind}")
    waits_for = f"the end of association {', '.join(sending)}" if sending else f"{quiet_s:g} s without a new image{kind}"
    if not sending and (evidence.listed_more or evidence.announced_missing):
        by_pacs = evidence.listed_more >= evidence.announced_missing
        number = evidence.listed_more if by_pacs else evidence.announced_missing
        more = "1 more image" if number == 1 else f"{number} more images"
        waits_for = f"{more} that {'the PACS lists' if by_pacs else f'{evidence.announced_by} named'}"
    if (now - evidence.opened_at).total_seconds() >= route.max_wait_s:
        return Completeness(
            True, forced=True, why=f"{route.max_wait_s:g} s after its first image it still waited for {waits_for}"
        )
    others = sending or evidence.listed_more or evidence.announced_missing
    return Completeness(False, waits_for=waits_for, at_most_s=route.max_wait_s if others else 0.0)


def _quiet(evidence: Arrivals, route: Patience) -> tuple[float, str]:
    if evidence.to_come:
        return route.quiet_s * GAP_FACTOR, f" (longer than usual, for {evidence.to_come})"
    if evidence.final_count:
        return route.quiet_s * FINAL_COUNT_FACTOR, " (all images that the source announced are here)"
    if evidence.missing_numbers:
        missing = evidence.missing_numbers
        numbers = "one image number is" if missing == 1 else f"{missing} image numbers are"
        return route.quiet_s * GAP_FACTOR, f" (longer than usual, for {numbers} missing in between)"
    return route.quiet_s, ""


def _still_sends(association: AssociationEvidence, route: Patience, now: datetime) -> bool:
    # A busy PACS sends many studies over one association: it holds the study it sent last, not all that it ever sent.
    if not (association.sends_this_study or association.sent_nothing_yet):
        return False
    idle = timedelta(seconds=max(IDLE_FACTOR * route.quiet_s, SHORTEST_IDLE_S))
    return now - association.last_active_at <= idle
