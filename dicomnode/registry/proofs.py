"""Proof by storage commitment: which deliveries a request was about, and what the report makes of them (PS3.4 J)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.clock import type_clock
from dicomnode.domain.states import DeliveryEvent, DeliveryState
from dicomnode.registry.engine import Database
from dicomnode.registry.queue import backoff_s
from dicomnode.registry.records import ClaimedDelivery
from dicomnode.registry.tables import Delivery, Result
from dicomnode.registry.transitions import DELIVERY, change
from dicomnode.registry.trouble import begun_anew

_AGAIN_AFTER = timedelta(minutes=10)
PROOF = "committed: the archive has taken responsibility for it (storage commitment)"


@begun_anew
class Proofs:
    """The registry's part for storage commitment that we ask for."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def asked(self, deliveries: Sequence[ClaimedDelivery], transaction_uid: str, ask_again_at: datetime) -> None:
        """Note a request before it leaves: the report may be faster than we are."""
        with self._database.write() as session:
            for delivery in deliveries:
                still = (Delivery.id == delivery.id, Delivery.starts == delivery.starts)
                values = {
                    "earlier_commitment_uid": Delivery.commitment_uid,
                    "commitment_uid": transaction_uid,
                    "not_before": ask_again_at,
                }
                session.execute(update(Delivery).where(*still, Delivery.state == DeliveryState.SENT.value).values(**values))

    def ask_again(self) -> None:
        """A report may have come while nobody listened, and archives do not all repeat it: open requests are made anew."""
        now = self._clock()
        with self._database.write() as session:
            ask_again(session, now)

    def reported(
        self,
        transaction_uid: str,
        committed: Sequence[str],
        missing: Mapping[str, str],
        failed: Mapping[str, str],
    ) -> list[str]:
        """What the report of a transaction changes; keys of the deliveries.

        missing: SOP Instance UID → why; these are sent again. failed: the same, of what the archive cannot say; asked about
        later. A transaction that nobody knows changes nothing, nor one that is older than the last but one: an archive that
        reports on the next association that we open reports on the request before the one that it is just asked.
        """
        now = self._clock()
        with self._database.write() as session:
            rows = session.execute(
                select(Delivery, Result.sop_instance_uid)
                .join(Result, Delivery.result_id == Result.id)
                .where(
                    or_(Delivery.commitment_uid == transaction_uid, Delivery.earlier_commitment_uid == transaction_uid),
                    Delivery.state == DeliveryState.SENT.value,
                )
                .with_for_update(of=Delivery)
            ).all()
            return [f"D{row.id}" for row, uid in rows if _concluded(session, row, uid, committed, missing, failed, now)]


def ask_again(session: Session, now: datetime) -> None:
    """See `Proofs.ask_again`."""
    open_requests = (Delivery.state == DeliveryState.SENT.value, Delivery.commitment_uid.is_not(None))
    session.execute(update(Delivery).where(*open_requests).values(not_before=now))


def _concluded(
    session: Session,
    row: Delivery,
    uid: str,
    committed: Sequence[str],
    missing: Mapping[str, str],
    failed: Mapping[str, str],
    now: datetime,
) -> bool:
    if uid in committed:
        values: dict[str, object] = {"proof": PROOF}
        change(session, DELIVERY, row.id, row.state, DeliveryEvent.PROVED, now=now, reason="committed", values=values)
    elif uid in missing:
        pause = timedelta(seconds=backoff_s(row.attempt))
        values = {"last_error": missing[uid], "not_before": now + pause, "sent_at": None, "proof": ""}
        event = DeliveryEvent.PROOF_SAYS_MISSING
        change(session, DELIVERY, row.id, row.state, event, now=now, reason=missing[uid], values=values)
    elif uid in failed:
        later = {"last_error": failed[uid], "not_before": now + _AGAIN_AFTER}
        session.execute(update(Delivery).where(Delivery.id == row.id).values(**later))
    else:
        return False
    return True
