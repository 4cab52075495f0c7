"""The registry's outbox for those who send: claims, their ends, proofs. Each call is one short transaction."""

from dicomnode.domain.clock import type_clock
from dicomnode.domain.states import DeliveryEvent
from dicomnode.registry import outbox
from dicomnode.registry.engine import Database
from dicomnode.registry.records import ClaimedDelivery
from dicomnode.registry.trouble import begun_anew


@begun_anew
class Outgoing:
    """What waits to be sent."""

    _database: Database
    _clock: type_clock

    def claim_delivery(self, worker: str, destination: str, lease_s: float) -> ClaimedDelivery | None:
        """The next object for this destination. Inside a job SEG goes first; SR and SC wait until it was accepted there."""
        now = self._clock()
        with self._database.read() as session:
            if not outbox.anything_due(session, destination, now):
                return None
        with self._database.write() as session:
            return outbox.claim(session, worker, destination, lease_s, now)

    def give_back_deliveries(self, worker: str, destination: str) -> int:
        """What this sender holds without knowing: its claim was kept, but the database went away before it said so."""
        with self._database.write() as session:
            why = "the database was away while its sender claimed it"
            return outbox.sender_ended(session, self._clock(), worker=worker, reason=why, destination=destination)

    def finish_delivery(
        self,
        delivery: ClaimedDelivery,
        event: DeliveryEvent,
        *,
        status: int | None = None,
        error: str = "",
        retry_after_s: float | None = None,
        proof: str = "",
        refused_by: str = "",
    ) -> None:
        """End an attempt to send (ACCEPTED, TRY_AGAIN, REJECTED, HELD) or to prove (PROVED, PROOF_SAYS_MISSING).

        refused_by: the profile of a destination that takes no objects of this class; what it puts in their place then waits.
        """
        with self._database.write() as session:
            outbox.finish(
                session,
                delivery,
                event,
                self._clock(),
                status=status,
                error=error,
                retry_after_s=retry_after_s,
                proof=proof,
                refused_by=refused_by,
            )

    def deliveries_to_prove(self, destination: str, limit: int = 100) -> list[ClaimedDelivery]:
        """Sent deliveries of this destination whose proof is due."""
        with self._database.read() as session:
            return outbox.to_prove(session, destination, limit, self._clock())

    def postpone_proof(self, delivery: ClaimedDelivery, retry_after_s: float, error: str = "") -> None:
        """No answer on this delivery's proof yet: ask again later."""
        with self._database.write() as session:
            outbox.postpone_proof(session, delivery, retry_after_s, error, self._clock())

    def unfinished_deliveries(self) -> dict[str, int]:
        """Destination → how many objects have still to be sent there, also where the settings no longer name it."""
        with self._database.read() as session:
            return outbox.unfinished(session)
