"""`Prover`: asks one destination whether it has what it accepted, many objects at once.

By storage commitment, where the destination is set so: the report comes on the same association, or later to our listener,
and whoever gets it writes it down. A destination that refuses to commit, or never reports, is asked by query instead, and the
proof says so.
"""

import threading
from collections.abc import Sequence
from datetime import timedelta

import structlog

from dicomnode.delivery.breaker import Breaker
from dicomnode.delivery.destination import Committing, Sender
from dicomnode.delivery.policy import DeliveryPolicy, proof_is_overdue
from dicomnode.domain.clock import type_clock
from dicomnode.domain.errors import StaleUpdate, UnreachableError
from dicomnode.domain.routes import Destination
from dicomnode.domain.states import DeliveryEvent
from dicomnode.domain.statuses import Outcome, outcome_of_store, store_status_in_words
from dicomnode.network import CommitmentReport, CommitmentRequest, new_transaction_uid
from dicomnode.registry import ClaimedDelivery, Registry

_log = structlog.get_logger(__name__)


class Prover:
    """Asks for the proofs of one destination that are due."""

    def __init__(
        self,
        registry: Registry,
        destination: Destination,
        sender: Sender,
        *,
        policy: DeliveryPolicy,
        clock: type_clock,
        breaker: Breaker,
        stop: threading.Event,
    ) -> None:
        self._registry, self._destination, self._sender = registry, destination, sender
        self._policy, self._clock, self._breaker, self._stop = policy, clock, breaker, stop

    def prove_due(self) -> int:
        """How many objects were asked about."""
        if self._destination.proof == "status" or not self._breaker.allows() or self._stop.is_set():
            return 0
        due = self._registry.deliveries_to_prove(self._destination.name)
        if not due:
            return 0
        if self._destination.proof == "commitment" and isinstance(self._sender, Committing):
            patient = [one for one in due if not self._waited_in_vain(one)]
            self._by_commitment(self._sender, patient)
            due = [one for one in due if one not in patient]
            return len(patient) + self._by_query(due, "no storage commitment was reported")
        return self._by_query(due, "")

    def _waited_in_vain(self, delivery: ClaimedDelivery) -> bool:
        since_sent = self._clock() - (delivery.sent_at or delivery.created_at)
        return proof_is_overdue(since_sent, delivery.attempt, self._policy)

    # --- storage commitment

    def _by_commitment(self, sender: Committing, due: Sequence[ClaimedDelivery]) -> None:
        if not due:
            return
        instances = tuple((one.result.sop_class_uid, one.result.sop_instance_uid) for one in due)
        request = CommitmentRequest(new_transaction_uid(), instances)
        patience = timedelta(seconds=self._policy.commitment_patience_s)
        self._registry.proofs.asked(due, request.transaction_uid, self._clock() + patience)
        try:
            sender.ask_commitment(request, self._reported, wait_s=self._policy.report_wait_s)
        except UnreachableError as error:
            _log.warning("storage commitment could not be asked for", destination=self._destination.name, exc_info=error)
            self._by_query(due, "the destination does not answer storage commitment requests")
            return
        self._breaker.reached()
        _log.info("storage commitment asked for", destination=self._destination.name, count=len(due))

    def _reported(self, report: CommitmentReport) -> None:
        changed = self._registry.proofs.reported(report.transaction_uid, report.committed, report.missing, report.refused)
        _log.info("storage commitment reported", deliveries=changed, failed=len(report.failed))

    # --- query

    def _by_query(self, due: Sequence[ClaimedDelivery], why: str) -> int:
        if not due:
            return 0
        try:
            there = self._sender.holds([one.result for one in due])
        except UnreachableError as error:
            pause = self._breaker.missed()
            for delivery in due:
                self._registry.postpone_proof(delivery, pause, f"no proof yet: {error}")
            return len(due)
        self._breaker.reached()
        for delivery in due:
            self._conclude(delivery, why, there=delivery.result.sop_instance_uid in there)
        return len(due)

    def _conclude(self, delivery: ClaimedDelivery, why: str, *, there: bool) -> None:
        since_sent = self._clock() - (delivery.sent_at or delivery.created_at)
        query = self._sender.query
        try:
            if there:
                # The archive lists it: indexed. That is no promise of safekeeping (PS3.4 J is).
                proof = f"indexed: found by {query}" + (f"; {why}" if why else "")
                self._registry.finish_delivery(delivery, DeliveryEvent.PROVED, proof=proof, error=_flag(delivery))
            elif proof_is_overdue(since_sent, delivery.attempt, self._policy):
                _log.error("accepted object is missing, sending again", delivery=delivery.key, destination=delivery.destination)
                message = f"accepted, but not found by {query}"
                self._registry.finish_delivery(delivery, DeliveryEvent.PROOF_SAYS_MISSING, error=message)
            else:
                # As long again as it is already missing: soon at first, seldom later.
                pause = max(self._policy.first_proof_pause_s, since_sent.total_seconds())
                pause = min(pause, self._policy.longest_proof_pause_s)
                self._registry.postpone_proof(delivery, pause, f"not found by {query} yet")
        except StaleUpdate:
            _log.info("delivery moved on while its proof was asked for", delivery=delivery.key)


def _flag(delivery: ClaimedDelivery) -> str:
    """What stays to be said of a delivery that was accepted with a warning."""
    status = delivery.last_status
    if status is None or outcome_of_store(status) is not Outcome.ACCEPTED_WITH_WARNING:
        return ""
    return f"delivered with a warning: {store_status_in_words(status)}"
