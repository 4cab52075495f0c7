"""Accepts connections and keeps those apart that do not (yet) ask for an association.

One thread polls all of them. A connection gets a thread and buffers only when its A-ASSOCIATE-RQ has come in and there is a
place for it: who sends nothing, two bytes, HTTP or a TLS greeting costs one descriptor until the deadline, or until others need
it.
"""

import os
import queue
import select
import socket
import ssl
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from dicomnode.network.permission import source_of
from dicomnode.receiving.limits import Limits, raise_descriptor_limit, share_of_one_address
from dicomnode.receiving.waiting import REJECT_BUSY, Next, Waiting

_log = structlog.get_logger("receiving")

type_deliver = Callable[[socket.socket, str, str], None]
type_make_room = Callable[[str, str], bool]
type_merit = Callable[[str, str], int]

_TICK_S = 0.5
_TICK_WHILE_ASKING_S = 0.1
_ACCEPTED_AT_ONCE = 64  # then those that wait are looked at, so that a flood does not push out who has asked meanwhile
_BACKLOG = 4096  # the kernel takes less where net.core.somaxconn is less
_LINGERING = 64
_LINGER_S = 1.0
_CRYPTOGRAPHERS = 2
_DESCRIPTORS_OF_AN_ASSOCIATION = 4
_OTHER_DESCRIPTORS = 64
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def _room_for_all(address: str, calling_ae: str) -> bool:  # noqa: ARG001
    return True


def _all_alike(address: str, calling_ae: str) -> int:  # noqa: ARG001
    return 0


class Listener:
    """`deliver(connection, address, calling_ae)` is called, in the listener's thread, for each that asks for an association.

    make_room: asked before that, with address and calling AE title; while it says False, the connection waits. merit: of the
    same; the lowest is handed on first. tls: None for plain DICOM.
    """

    def __init__(
        self,
        listening: socket.socket,
        admits: Callable[[str], bool],
        deliver: type_deliver,
        limits: Limits,
        *,
        make_room: type_make_room = _room_for_all,
        merit: type_merit = _all_alike,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listening, self._admits, self._deliver, self._limits = listening, admits, deliver, limits
        self._make_room, self._merit, self._tls = make_room, merit, tls
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()  # all, by descriptor, oldest first
        self._counts: Counter[str] = Counter()  # of these, by source
        self._asking: OrderedDict[int, Waiting] = OrderedDict()  # of these, whose request is in and who has no place yet
        self._working: set[int] = set()  # of these, those in the hands of a cryptographer
        self._lingering: OrderedDict[int, tuple[Waiting, float]] = OrderedDict()  # turned away, until they end their side
        self._worked: queue.SimpleQueue[tuple[Waiting, Next]] = queue.SimpleQueue()
        self._cryptographers = ThreadPoolExecutor(_CRYPTOGRAPHERS, "dicom-tls") if tls else None
        self._most = self._most_asking = limits.max_waiting
        self._poll = select.epoll()  # no limit at 1,024 descriptors as select has
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicom-listener", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        descriptors = raise_descriptor_limit() - _OTHER_DESCRIPTORS
        associations = self._limits.max_associations + self._limits.max_giving
        spare = descriptors - _DESCRIPTORS_OF_AN_ASSOCIATION * associations
        self._most = min(self._limits.max_waiting, max(1, spare - _LINGERING))
        self._most_asking = max(1, self._most // 2)
        self._listening.listen(_BACKLOG)  # a burst must not find the queue full: its SYNs would be retried after a second
        self._listening.setblocking(False)
        self._poll.register(self._listening, select.EPOLLIN)
        self._poll.register(self._wake, select.EPOLLIN)
        self._thread.start()

    def renew_tls(self, context: ssl.SSLContext) -> None:
        """For connections from now on. Only where there was one from the start."""
        if self._tls is not None:
            self._tls = context

    @property
    def alive(self) -> bool:
        """Whether connections are still accepted."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more and close what waits."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._listening.close()
        if self._cryptographers is not None:
            self._cryptographers.shutdown()
            self._take_back()
        for one in (*self._waiting.values(), *(one for one, _ in self._lingering.values())):
            one.connection.close()
        self._poll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while not self._stopping.is_set():
            tick_s = _TICK_WHILE_ASKING_S if self._asking else _TICK_S
            ready = dict(self._poll.poll(tick_s))
            # Accepted last: a new connection may get the descriptor of one that is dropped in this turn.
            knocking = ready.pop(self._listening.fileno(), None)
            if ready.pop(self._wake, None):
                os.eventfd_read(self._wake)
            for descriptor, events in ready.items():
                self._turn_to(descriptor, ended=bool(events & _ENDED))
            self._take_back()
            self._seat()
            if knocking is not None:
                self._accept()
            self._drop_late()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, (address, *_) = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # gone already
            except OSError as error:  # no descriptors left: make room, the next turn of the loop tries again
                _log.error("a connection could not be accepted", error=type(error).__name__)
                if not self._drop_oldest():
                    time.sleep(0.05)
                return
            if self._admits(address):
                self._admit(connection, address)
            else:
                _log.warning("a connection from an unknown address was closed", address=address)
                connection.close()

    def _admit(self, connection: socket.socket, address: str) -> None:
        stale = self._waiting.get(connection.fileno())  # its TLS failed, which closed it; not yet taken back
        if stale is not None:
            self._forget(stale)
        try:
            one = Waiting(connection, address, source_of(address), time.monotonic(), self._tls)
            # One shot: who is in the hands of a cryptographer, or waits for a place, is not reported again and again.
            self._poll.register(connection, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
        except OSError:  # reset by the peer already
            connection.close()
            return
        self._waiting[one.descriptor] = one
        self._counts[one.source] += 1
        if self._counts[one.source] > share_of_one_address(self._most) or len(self._waiting) > self._most:
            self._drop_oldest()

    def _drop_oldest(self) -> bool:
        """Of the address that holds most: a modality is not turned away for the sake of those who only hold connections.

        Nor is one that has asked and waits for a place, as long as others hold connections in silence.
        """
        if not self._waiting:
            return False
        most = max(self._counts.values())
        greedy = [one for one in self._waiting.values() if self._counts[one.source] == most]
        self._drop(next((one for one in greedy if one.descriptor not in self._asking), greedy[0]))
        return True

    def _turn_to(self, descriptor: int, *, ended: bool) -> None:
        """Bytes came, or the end."""
        one = self._waiting.get(descriptor)
        if one is not None and descriptor not in self._working:
            if descriptor in self._asking:
                self._drop(one)  # it sent its request and left before there was a place
                return
            try:
                self._act(one, one.look(ended=ended))
            except OSError:
                self._drop(one)
        elif descriptor in self._lingering:
            self._drain(*self._lingering[descriptor])

    def _take_back(self) -> None:
        """What the cryptographers are done with."""
        while not self._worked.empty():
            one, needs = self._worked.get()
            if self._waiting.get(one.descriptor) is one:
                self._working.discard(one.descriptor)
                self._act(one, needs)
            else:  # dropped meanwhile
                one.connection.close()

    def _act(self, one: Waiting, needs: Next) -> None:
        """Give one connection what it needs next."""
        try:
            if needs is Next.NOTHING:
                self._drop(one)
            elif needs is Next.READY:
                self._asking[one.descriptor] = one
                self._poll.modify(one.descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
            elif needs is Next.WORK and self._cryptographers is not None:
                self._working.add(one.descriptor)
                self._cryptographers.submit(self._work, one)
            else:
                awaited = select.EPOLLOUT if needs is Next.WRITE else select.EPOLLIN
                self._poll.modify(one.descriptor, awaited | select.EPOLLRDHUP | select.EPOLLONESHOT)
        except OSError:
            self._drop(one)

    def _work(self, one: Waiting) -> None:
        """In a cryptographer's thread: signing takes a millisecond, of which a thousand TLS clients would stop everybody."""
        try:
            needs = one.step()
        except OSError as error:
            needs = Next.NOTHING
            _log.warning("a TLS connection failed", address=one.address, error=type(error).__name__)
        self._worked.put((one, needs))
        with suppress(OSError):  # the listener has stopped
            os.eventfd_write(self._wake, 1)

    def _seat(self) -> None:
        """Hand on who asks for an association, as far as there are places; reject who has waited long enough."""
        refused: set[tuple[str, int]] = set()
        now = time.monotonic()
        merits = {one: self._merit(one.address, one.calling_ae) for one in self._asking.values()}
        for one, merit in sorted(merits.items(), key=lambda asking: asking[1]):
            if (one.source, merit) not in refused and self._make_room(one.address, one.calling_ae):
                self._hand_over(one)
            else:
                refused.add((one.source, merit))
                if now - one.since > self._limits.place_wait_s:
                    self._reject(one)
        while len(self._asking) > self._most_asking:
            self._reject(max(self._asking.values(), key=merits.__getitem__))

    def _reject(self, one: Waiting) -> None:
        _log.warning("an association was rejected", code="too_many_associations", address=one.address)
        self._drop(one, REJECT_BUSY)

    def _hand_over(self, one: Waiting) -> None:
        self._forget(one)
        try:
            self._deliver(one.hand_over(), one.address, one.calling_ae)
        except OSError:
            one.connection.close()
        except Exception as error:  # noqa: BLE001 - boundary: one connection's trouble is not the listener's
            _log.error("an association could not be started", error=type(error).__name__)
            one.connection.close()

    def _drop_late(self) -> None:
        now = time.monotonic()
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if oldest.since + self._limits.association_deadline_s > now:
                break
            self._drop(oldest)
        while self._lingering:
            one, until = next(iter(self._lingering.values()))
            if until > now and len(self._lingering) <= _LINGERING:
                break
            self._end(one)

    def _forget(self, one: Waiting, *, closing: bool = False) -> None:
        """It waits no more. Its descriptor leaves the poll before somebody else gets it; closing it does that, too."""
        del self._waiting[one.descriptor]
        self._asking.pop(one.descriptor, None)
        self._working.discard(one.descriptor)
        self._counts[one.source] -= 1
        if not self._counts[one.source]:
            del self._counts[one.source]
        if not closing:
            with suppress(OSError):
                self._poll.unregister(one.descriptor)

    def _drop(self, one: Waiting, farewell: bytes | None = None) -> None:
        working = one.descriptor in self._working
        self._forget(one, closing=not working)
        if working:
            return  # its cryptographer returns at once; `_take_back` closes it
        lingers = one.turn_away(farewell) if farewell is not None else one.turn_away()
        if lingers:
            self._lingering[one.descriptor] = (one, time.monotonic() + _LINGER_S)
            self._poll.modify(one.descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
        else:
            one.connection.close()

    def _drain(self, one: Waiting, until: float) -> None:
        with suppress(OSError):
            if not one.drained() and until > time.monotonic():
                self._poll.modify(one.descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
                return
        self._end(one)

    def _end(self, one: Waiting) -> None:
        del self._lingering[one.descriptor]
        one.connection.close()  # which takes it out of the poll
