"""`Deliverer`: takes what is due from the outbox, sends it, and asks for proof."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import structlog

from dicomnode.delivery.breaker import Breaker
from dicomnode.delivery.checks import bytes_problem, identity_problem
from dicomnode.delivery.destination import Answer, Connection
from dicomnode.delivery.kinds import sender_for
from dicomnode.delivery.policy import DeliveryPolicy, backoff, decide
from dicomnode.delivery.proving import Prover
from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import DatabaseUnreachable, StaleUpdate, StorageError, UnreachableError
from dicomnode.domain.routes import Destination
from dicomnode.domain.states import DeliveryEvent
from dicomnode.domain.statuses import Outcome
from dicomnode.registry import ClaimedDelivery, Registry
from dicomnode.storage import Store

_log = structlog.get_logger(__name__)

_ALARMING = frozenset({DeliveryEvent.REJECTED, DeliveryEvent.HELD})
_NO_TIME = timedelta()


class Deliverer:
    """Serves all destinations, each by itself: one that is dead or slow delays no other.

    Raises SettingsError for a destination that cannot be served.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        destinations: Sequence[Destination],
        our_ae_title: str,
        worker_name: str,
        *,
        policy: DeliveryPolicy | None = None,
        clock: type_clock = utc_now,
        rng: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or DeliveryPolicy()
        self._stop = threading.Event()
        rng = rng or Random()  # noqa: S311 - spreads retries, guards nothing
        self._outlets = [
            _Outlet(
                registry, store, destination, our_ae_title, worker_name,
                policy=self._policy, clock=clock, rng=rng, monotonic=monotonic, stop=self._stop,
            )
            for destination in destinations
        ]  # fmt: skip

    def run_once(self) -> int:
        """Send what is due now to every destination side by side; returns how many sends were tried."""
        return self._each(_Outlet.send_due)

    def prove_once(self) -> int:
        """Ask for the proofs that are due; returns how many deliveries were asked about."""
        return self._each(_Outlet.prove_due)

    def _each(self, task: Callable[["_Outlet"], int]) -> int:
        if not self._outlets:
            return 0
        with ThreadPoolExecutor(len(self._outlets), "deliver") as pool:
            return sum(pool.map(task, self._outlets))

    def loop(self, stop: threading.Event) -> None:
        """Serve until `stop` is set; objects on their way are finished, nothing new is begun."""
        threads = [
            threading.Thread(target=outlet.serve, name=f"deliver {outlet.name}", daemon=True) for outlet in self._outlets
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        self._stop.set()
        for thread in threads:
            thread.join()


class _Outlet:
    """One destination with its breaker."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        destination: Destination,
        our_ae_title: str,
        worker_name: str,
        *,
        policy: DeliveryPolicy,
        clock: type_clock,
        rng: Random,
        monotonic: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._sender = sender_for(destination, our_ae_title, policy.longest_send_s)
        self._registry = registry
        self._store = store
        self._worker = worker_name
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._stop = stop
        self._breaker = Breaker(policy, rng, monotonic)
        # Its own breaker: an archive may take C-STORE and know no C-FIND.
        proof_breaker = Breaker(policy, rng, monotonic)
        self._prover = Prover(registry, destination, self._sender, policy=policy, clock=clock, breaker=proof_breaker, stop=stop)
        self._in_doubt = False  # whether we may hold what we do not know of
        # Kept in memory only: a restart makes us more patient, never less.
        self._doubted_since: dict[int, datetime] = {}

    def serve(self) -> None:
        """Send and prove until told to stop."""
        while not self._stop.is_set():
            try:
                if self._in_doubt:
                    self._registry.give_back_deliveries(self._worker, self.name)
                    self._in_doubt = False
                busy = self.send_due() + self.prove_due()
            except DatabaseUnreachable as error:
                if not self._in_doubt:
                    _log.warning("nothing can be sent while the database is away", destination=self.name, exc_info=error)
                busy, self._in_doubt = 0, True
            except Exception:  # noqa: BLE001
                # The boundary of this destination's thread: a defect of ours must not end it.
                _log.exception("delivery stumbled, going on", destination=self.name)
                busy, self._in_doubt = 0, True
            if not busy:
                self._stop.wait(self._policy.poll_s)

    def prove_due(self) -> int:
        """Ask the destination for what it accepted; returns how many objects were asked about."""
        return self._prover.prove_due()

    # --- sending

    def send_due(self) -> int:
        """Send everything that is due; returns how many sends were tried."""
        attempts = 0
        delivery = self._next() if self._breaker.allows() else None
        while delivery is not None:
            delivery, tried = self._send_job(delivery)
            attempts += tried
        return attempts

    def _send_job(self, first: ClaimedDelivery) -> tuple[ClaimedDelivery | None, int]:
        """Send `first` and what else its job has due on one association; gives the claimed one that did not fit and a count."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._sender.connect(first.result))
            except UnreachableError as error:
                self._unreachable(first, error)
                return None, 1
            self._breaker.reached()
            tried = 0
            following: ClaimedDelivery | None = first
            while following is not None and following.job_key == first.job_key and self._fits(connection, following, tried):
                self._send(connection, following)
                tried += 1
                following = self._next()
            return following, tried

    @staticmethod
    def _fits(connection: Connection, delivery: ClaimedDelivery, tried: int) -> bool:
        # The first one opened the connection; asking again could go round for ever.
        return tried == 0 or connection.takes(delivery.result)

    def _next(self) -> ClaimedDelivery | None:
        """Claim the next object that may leave; what may not is held on the way."""
        while not self._stop.is_set():
            delivery = self._registry.claim_delivery(self._worker, self.name, self._policy.lease_s)
            if delivery is None or self._may_leave(delivery):
                return delivery
        return None

    def _may_leave(self, delivery: ClaimedDelivery) -> bool:
        try:
            path = self._store.absolute(delivery.result.path)
            problem = (
                bytes_problem(path, delivery.result)
                or self._identity_problem(path, delivery)
                or self._registry.keeping.references_problem(delivery.result.source_sop_instance_uids)
            )
        except StorageError as error:
            problem = str(error)
        except OSError as error:
            message = f"the spooled object cannot be read now: {error.strerror or type(error).__name__}"
            self._finish(delivery, Answer(Outcome.TRY_AGAIN, message=message))
            return False
        if problem:
            self._record(delivery, DeliveryEvent.HELD, Answer(Outcome.REJECTED, message=problem))
        return not problem

    def _identity_problem(self, path: Path, delivery: ClaimedDelivery) -> str:
        study_instance_uid, newest = self._registry.keeping.identity(delivery.study_key)
        return identity_problem(path, newest, study_instance_uid)

    def _send(self, connection: Connection, delivery: ClaimedDelivery) -> None:
        try:
            answer = connection.send(self._store.absolute(delivery.result.path), delivery.result)
        except Exception as error:  # noqa: BLE001
            # The boundary of one object: whatever it sets off must not stand in the way of the objects behind it.
            _log.exception("sending failed on our side", delivery=delivery.key, destination=self.name)
            answer = Answer(Outcome.DOUBTFUL, message=f"sending failed on our side ({type(error).__name__})")
        self._finish(delivery, answer)

    def _unreachable(self, delivery: ClaimedDelivery, error: UnreachableError) -> None:
        pause = self._breaker.missed()
        _log.warning("destination out of reach", destination=self.name, attempts=self._breaker.failures, pause_s=round(pause))
        # The pause is the breaker's: once the destination is back, what waited for it need not wait longer.
        self._finish(delivery, Answer(Outcome.TRY_AGAIN, message=str(error)), retry_after_s=0.0)

    def _finish(self, delivery: ClaimedDelivery, answer: Answer, *, retry_after_s: float | None = None) -> None:
        now = self._clock()
        doubted_for = _NO_TIME
        if answer.outcome is Outcome.DOUBTFUL:
            doubted_for = now - self._doubted_since.setdefault(delivery.id, now)
        age = now - (delivery.tried_since or now)
        event = decide(answer.outcome, age=age, doubted_for=doubted_for, policy=self._policy)
        if retry_after_s is None:
            first, longest = self._policy.first_pause_s, self._policy.longest_pause_s
            retry_after_s = backoff(delivery.attempt, self._rng, first_s=first, longest_s=longest)
        self._record(delivery, event, answer, retry_after_s if event is DeliveryEvent.TRY_AGAIN else None)

    def _record(
        self, delivery: ClaimedDelivery, event: DeliveryEvent, answer: Answer, retry_after_s: float | None = None
    ) -> None:
        if event is not DeliveryEvent.TRY_AGAIN:
            self._doubted_since.pop(delivery.id, None)
        error = answer.message
        if answer.outcome is Outcome.ACCEPTED_WITH_WARNING:
            error = f"delivered with a warning: {error}"
        elif event is DeliveryEvent.HELD and answer.outcome is Outcome.TRY_AGAIN:
            error = f"given up after {self._policy.hold_after.days} days: {error}"
        try:
            self._written_down(
                lambda: self._registry.finish_delivery(
                    delivery,
                    event,
                    status=answer.status,
                    error=error,
                    retry_after_s=retry_after_s,
                    proof=answer.proof,
                    refused_by=self._destination.profile.name if answer.class_refused else "",
                )
            )
        except StaleUpdate:
            # Our lease ran out while we sent. Its new owner sends the same bytes under the same UID: still once.
            _log.warning("delivery was taken over by another sender", delivery=delivery.key, destination=self.name)
            return
        say = _log.error if event in _ALARMING else _log.info
        say(
            "delivery attempt ended",
            delivery=delivery.key,
            job=delivery.job_key,
            destination=self.name,
            kind=delivery.result.kind.value,
            outcome=event.value,
            status=None if answer.status is None else f"{answer.status:04X}",
            attempt=delivery.attempt,
        )

    def _written_down(self, write: Callable[[], None]) -> None:
        """`write`, as often as the database is away: an object that was accepted is not sent again for that."""
        said = False
        while True:
            try:
                return write()
            except DatabaseUnreachable as error:
                if not said:
                    _log.warning("the end of a delivery cannot be written yet", destination=self.name, exc_info=error)
                said = True
                if self._stop.wait(self._policy.poll_s):
                    raise
