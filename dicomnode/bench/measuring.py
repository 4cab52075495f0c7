"""What a measurement is: rounds of one case and subject, their median, and ratios between subjects. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

OURS = "ours"
_Subject = TypeVar("_Subject")


@dataclass(frozen=True, slots=True)
class Row:
    """All rounds of one subject in one case. Ratios are made of the unit "ms/image"."""

    case: str
    subject: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        """The smallest round."""
        return min(self.rounds)

    @property
    def is_time(self) -> bool:
        """Whether it counts in ratios."""
        return self.unit == "ms/image"

    def as_json(self) -> dict[str, object]:
        """One element of `rows`."""
        return {
            "case": self.case,
            "subject": self.subject,
            "median": round(self.median, 4),
            "best": round(self.best, 4),
            "unit": self.unit,
            "rounds": [round(one, 4) for one in self.rounds],
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound and what was measured. `measured` is None where nothing was; `applies` is False on a disk too slow for it."""

    case: str
    name: str
    bound: float
    measured: float | None
    at_most: bool = False  # else at least
    gate: bool = False
    applies: bool = True
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        """None: not measured, or it does not apply."""
        if self.measured is None or not self.applies:
            return None
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def as_json(self) -> dict[str, object]:
        """One element of `goals`."""
        return {
            "goal": self.name,
            "bound": self.bound,
            "kind": "at most" if self.at_most else "at least",
            "unit": self.unit,
            "measured": None if self.measured is None else round(self.measured, 3),
            "applies": self.applies,
            "met": self.met,
            "gate": self.gate,
        }


class Rounds:
    """Collects measurements in any order and gives rows in the order in which their first one came."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str, str], list[float]] = {}

    def add(self, case: str, subject: str, unit: str, value: float) -> None:
        """One round."""
        self._taken.setdefault((case, subject, unit), []).append(value)

    def rows(self) -> tuple[Row, ...]:
        """Everything so far."""
        return tuple(Row(*key, tuple(values)) for key, values in self._taken.items())


def ratios(rows: Iterable[Row], *, best: bool = False) -> dict[str, float]:
    """t(peer)/t(ours) by "case/peer", > 1 where ours is faster; of medians, or of best rounds."""
    times = {(row.case, row.subject): row.best if best else row.median for row in rows if row.is_time}
    return {
        f"{case}/{subject}": round(time / times[case, OURS], 3)
        for (case, subject), time in times.items()
        if subject != OURS and times.get((case, OURS))
    }


def rotated(subjects: Sequence[_Subject], round_index: int) -> Sequence[_Subject]:
    """Each round is begun by another subject: nobody always runs in the wake of the same one."""
    start = round_index % max(1, len(subjects))
    return (*subjects[start:], *subjects[:start])


def by_key(rows: Iterable[Row]) -> Mapping[tuple[str, str, str], Row]:
    """Rows by case, subject and unit."""
    return {(row.case, row.subject, row.unit): row for row in rows}
