"""The places of established associations: how many there are, and who gives his up when others wait for one.

A hundred associations from one address must not keep a modality behind that same address waiting: while there are free places
everybody keeps his; when there are none, the association that has been of least use makes room. One that is in the middle of an
object and sends is never chosen.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from dicomnode.network.permission import source_of
from dicomnode.receiving.limits import Limits, share_of_one_address

# A sender that has just been let in sends its first command within a round trip; between two objects it may think.
_NEW_GRACE_S = 0.3
_PROVEN_GRACE_S = 2.0
# A data set that comes more slowly than this, over this time, does not hold a place against others.
_STALLED_BYTES_PER_S = 1000.0
_WINDOW_S = 2.0
_HURRIED_WINDOW_S = 0.5
# Of who has brought instances, over so long: no network that still carries anything is silent for it, and else who stores one
# object and stalls in the next would keep his place for the whole network timeout.
_PROVEN_WINDOW_S = 15.0

_USELESS_PART = 3  # those who only held their places share a third of them
_WEIGHT_OF_ONE = 0.2
_REMEMBERED = 1024  # callers of whom we know how they used their last place


class Merit(IntEnum):
    """What a caller (address and AE title) mostly did with its last places. Who is best is let in first."""

    USEFUL = 0  # it brought instances
    UNKNOWN = 1
    USELESS = 2  # it brought nothing until it had to make room


class Doing(Enum):
    """What an association is at."""

    IDLE = "idle"  # negotiating, or between messages, or within a command set
    RECEIVING = "receiving"  # a data set: the peer's turn
    ANSWERING = "answering"  # the data set is in: our turn
    GIVING = "giving"  # answers of a query, or instances: our turn, for as long as there are more of them


class Occupant(Protocol):
    """An association as the guard sees it; read from other threads.

    last_active: monotonic seconds of the last bytes, in either direction. received_bytes: all so far. instances: C-STOREs
    answered so far.
    """

    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def calling_ae(self) -> str: ...  # noqa: D102
    @property
    def doing(self) -> Doing: ...  # noqa: D102
    @property
    def last_active(self) -> float: ...  # noqa: D102
    @property
    def received_bytes(self) -> int: ...  # noqa: D102
    @property
    def instances(self) -> int: ...  # noqa: D102
    def give_way(self) -> None:
        """End with A-ABORT. Called from another thread; must not wait."""
        ...


@dataclass(slots=True, eq=False)
class _Place:
    occupant: Occupant
    source: str
    measured_at: float
    measured_bytes: int

    def useless(self, now: float, *, merited: bool, hurried: bool) -> bool:
        """Whether its occupant may be asked to go. Called again and again while somebody waits.

        merited: its occupant's caller has brought instances before. hurried: for such a caller, before which strangers have no
        grace.
        """
        occupant = self.occupant
        if occupant.doing is Doing.ANSWERING:
            return False
        if occupant.doing is Doing.GIVING:  # who takes nothing of what he asked for
            return now - occupant.last_active >= _PROVEN_WINDOW_S
        if occupant.doing is Doing.IDLE:
            grace_s = _PROVEN_GRACE_S if occupant.instances or merited else 0.0 if hurried else _NEW_GRACE_S
            return now - occupant.last_active >= grace_s
        if occupant.instances:
            return self._stalled(now, _PROVEN_WINDOW_S, _PROVEN_WINDOW_S)
        return self._stalled(now, _HURRIED_WINDOW_S if hurried and not merited else _WINDOW_S, _WINDOW_S)

    def _stalled(self, now: float, window_s: float, longest_s: float) -> bool:
        age, received = now - self.measured_at, self.occupant.received_bytes - self.measured_bytes
        if window_s <= age < 2 * longest_s and received < _STALLED_BYTES_PER_S * age:
            return True
        if age >= longest_s:  # it was fast enough, or nobody has asked for long: measured anew
            self.measured_at, self.measured_bytes = now, self.occupant.received_bytes
        return False


class Places:
    """Who is in. Safe for many threads."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._most_giving, self._clock = limits.max_associations, limits.max_giving, clock
        self._lock = threading.Lock()
        self._places: dict[Occupant, _Place] = {}
        self._usefulness: OrderedDict[tuple[str, str], float] = OrderedDict()  # by caller: 1 useful, 0 useless, of late

    def enter(self, occupant: Occupant) -> None:
        """Count it from now on; `make_room` has said that there is a place."""
        with self._lock:
            place = _Place(occupant, source_of(occupant.address), self._clock(), occupant.received_bytes)
            self._places[occupant] = place

    def leave(self, occupant: Occupant) -> None:
        """It has ended."""
        with self._lock:
            self._places.pop(occupant, None)
            if occupant.instances:
                self._remember(occupant, 1.0)

    def merit(self, address: str, calling_ae: str) -> Merit:
        """What to think of one who asks. A modality that has sent before does not queue behind strangers at its own address."""
        with self._lock:
            return self._merit(source_of(address), calling_ae)

    def _remember(self, occupant: Occupant, usefulness: float) -> None:
        """One good or bad turn among many changes little: a stranger cannot spoil a modality's name, nor mend his own."""
        caller = source_of(occupant.address), occupant.calling_ae
        before = self._usefulness.pop(caller, usefulness)
        self._usefulness[caller] = before + (usefulness - before) * _WEIGHT_OF_ONE
        if len(self._usefulness) > _REMEMBERED:
            self._usefulness.popitem(last=False)

    def make_room(self, address: str, calling_ae: str = "") -> bool:
        """Whether this caller may come in. Where there is no place for it, the least useful of its kind is vacated."""
        with self._lock:
            now, source = self._clock(), source_of(address)
            merit = self._merit(source, calling_ae)
            asked = self._who_could_go(source, merit)
            if asked is None:
                return True
            hurried = merit is Merit.USEFUL
            useless = [one for one in asked if one.useless(now, merited=self._merited(one), hurried=hurried)]
            if not useless:
                return False
            sources = Counter(place.source for place in self._places.values())
            chosen = min(useless, key=lambda one: (-sources[one.source], one.occupant.instances > 0, one.occupant.last_active))
            del self._places[chosen.occupant]
            if chosen.occupant.calling_ae and not chosen.occupant.instances:
                self._remember(chosen.occupant, 0.0)
        chosen.occupant.give_way()
        return True

    def _who_could_go(self, source: str, merit: Merit) -> list[_Place] | None:
        """Of whose places one has to be vacated before such a caller may come in; None if there is a free one for it."""
        places = self._that_count()
        alike = [one for one in places if self._merit(one.source, one.occupant.calling_ae) is merit]
        others = any(usefulness >= 0.5 for usefulness in self._usefulness.values())
        if merit is Merit.USELESS and others and len(alike) >= max(1, self._most // _USELESS_PART):
            return alike  # whatever they do, there are places for those
        if len(places) >= self._most:
            return places
        neighbours = [one for one in places if one.source == source]
        if merit is not Merit.USEFUL and len(neighbours) >= share_of_one_address(self._most):
            return neighbours
        return None

    def _that_count(self) -> list[_Place]:
        """All but those who are at a query or a retrieval: one can last for minutes, and must not keep a modality waiting."""
        giving = [one for one in self._places.values() if one.occupant.doing is Doing.GIVING][: self._most_giving]
        return [one for one in self._places.values() if one not in giving]

    def _merited(self, place: _Place) -> bool:
        return self._merit(place.source, place.occupant.calling_ae) is Merit.USEFUL

    def _merit(self, source: str, calling_ae: str) -> Merit:
        usefulness = self._usefulness.get((source, calling_ae))
        return Merit.UNKNOWN if usefulness is None else Merit.USEFUL if usefulness >= 0.5 else Merit.USELESS
