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


_REMEMBERED = 1024  # callers of whom we know how they used their last place


class Merit(IntEnum):
    """What a caller (address and AE title) did with its last place. Who is best is let in first."""

    USEFUL = 0  # it brought instances
    UNKNOWN = 1
    USELESS = 2  # it brought nothing until it had to make room


class Doing(Enum):
    """What an association is at."""

    IDLE = "idle"  # negotiating, or between messages, or within a command set
    RECEIVING = "receiving"  # a data set: the peer's turn
    ANSWERING = "answering"  # the data set is in: our turn


class Occupant(Protocol):
    """An association as the guard sees it; read from other threads.

    calling_ae: as soon as it is known, "" before.
    last_heard: monotonic seconds of the last bytes. received_bytes: all so far. instances: C-STOREs answered so far.
    """

    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def calling_ae(self) -> str: ...  # noqa: D102
    @property
    def doing(self) -> Doing: ...  # noqa: D102
    @property
    def last_heard(self) -> float: ...  # noqa: D102
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

    def useless(self, now: float) -> bool:
        """Whether its occupant may be asked to go. Called again and again while somebody waits."""
        occupant = self.occupant
        if occupant.doing is Doing.ANSWERING:
            return False
        if occupant.doing is Doing.IDLE:
            return now - occupant.last_heard >= (_PROVEN_GRACE_S if occupant.instances else _NEW_GRACE_S)
        return not occupant.instances and self._stalled(now)

    def _stalled(self, now: float) -> bool:
        age, received = now - self.measured_at, self.occupant.received_bytes - self.measured_bytes
        if age < _WINDOW_S:
            return False
        if age < 2 * _WINDOW_S and received < _STALLED_BYTES_PER_S * age:
            return True
        self.measured_at, self.measured_bytes = now, self.occupant.received_bytes
        return False


class Places:
    """Who is in. Safe for many threads."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = limits.max_associations, clock
        self._lock = threading.Lock()
        self._places: dict[Occupant, _Place] = {}
        self._merits: OrderedDict[tuple[str, str], Merit] = OrderedDict()

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
                self._remember(occupant, Merit.USEFUL)

    def merit(self, address: str, calling_ae: str) -> Merit:
        """What to think of one who asks. A modality that has sent before does not queue behind strangers at its own address."""
        with self._lock:
            return self._merits.get((source_of(address), calling_ae), Merit.UNKNOWN)

    def _remember(self, occupant: Occupant, merit: Merit) -> None:
        caller = source_of(occupant.address), occupant.calling_ae
        if merit is Merit.USEFUL or self._merits.get(caller) is not Merit.USEFUL:
            self._merits[caller] = merit
            self._merits.move_to_end(caller)
            if len(self._merits) > _REMEMBERED:
                self._merits.popitem(last=False)

    def make_room(self, address: str) -> bool:
        """Whether one more from this address may come in. If all places are taken, the least useful one is vacated for it."""
        with self._lock:
            sources = Counter(place.source for place in self._places.values())
            full = len(self._places) >= self._most
            source = source_of(address)
            greedy = sources[source] >= share_of_one_address(self._most)
            if not full and not greedy:
                return True
            now = self._clock()
            asked = [place for place in self._places.values() if full or place.source == source]
            useless = [place for place in asked if place.useless(now)]
            if not useless:
                return False
            chosen = min(useless, key=lambda one: (-sources[one.source], one.occupant.instances > 0, one.occupant.last_heard))
            del self._places[chosen.occupant]
            if chosen.occupant.calling_ae and not chosen.occupant.instances:
                self._remember(chosen.occupant, Merit.USELESS)
        chosen.occupant.give_way()
        return True
