"""Storage commitments that peers ask of us: noted before they are answered, decided and reported later, however often we fall.

A promise lasts: a committed instance is kept until `keep_until`, whatever retention says.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from dicomnode.domain.clock import type_clock
from dicomnode.registry.engine import Database, insert_if_absent
from dicomnode.registry.records import AskedCommitment
from dicomnode.registry.tables import Commitment, Conflict, Instance
from dicomnode.registry.trouble import begun_anew

_AT_ONCE = 500  # in one IN (…): old SQLite takes 999 parameters


@begun_anew
class Promises:
    """The registry's part for storage commitment that is asked of us. Each call is one transaction, durable on return."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def note(self, peer: str, transaction_uid: str, references: Sequence[tuple[str, str]]) -> None:
        """A request of (SOP class, SOP instance); the same transaction again is decided and reported again."""
        now = self._clock()
        first: dict[str, object] = {
            "transaction_uid": transaction_uid,
            "peer": peer,
            "references": [list(one) for one in references],
            "received_at": now,
            "attempts": 0,
            "not_before": now,
            "last_error": "",
        }
        again = (Commitment.peer == peer, Commitment.transaction_uid == transaction_uid, Commitment.reported_at.is_not(None))
        with self._database.write() as session:
            insert_if_absent(session, Commitment, first, ["peer", "transaction_uid"])
            undecided = {"reported_at": None, "decided_at": None, "not_before": now}
            session.execute(update(Commitment).where(*again).values(**undecided))

    def due(self, limit: int = 10) -> list[AskedCommitment]:
        """What is not yet reported and may be tried now, oldest first."""
        statement = (
            select(Commitment)
            .where(Commitment.reported_at.is_(None), Commitment.not_before <= self._clock())
            .order_by(Commitment.not_before, Commitment.id)
            .limit(limit)
        )
        with self._database.read() as session:
            return [_asked(row) for row in session.scalars(statement)]

    def in_quarantine(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Those under whose UID other content waits for an operator."""
        found: set[str] = set()
        with self._database.read() as session:
            for start in range(0, len(sop_instance_uids), _AT_ONCE):
                some = Conflict.sop_instance_uid.in_(sop_instance_uids[start : start + _AT_ONCE])
                found |= set(session.scalars(select(Conflict.sop_instance_uid).where(some, Conflict.decided_at.is_(None))))
        return found

    def keep(self, sop_instance_uids: Sequence[str], keep_until: datetime) -> None:
        """From now on these are exempt from purging until then, at least."""
        longer = or_(Instance.keep_until.is_(None), Instance.keep_until < keep_until)
        with self._database.write() as session:
            for start in range(0, len(sop_instance_uids), _AT_ONCE):
                some = Instance.sop_instance_uid.in_(sop_instance_uids[start : start + _AT_ONCE])
                session.execute(update(Instance).where(some, longer).values(keep_until=keep_until))

    def decide(self, commitment_id: int, failed: Mapping[str, int]) -> None:
        """What is not promised (SOP Instance UID → Failure Reason), the rest is: before the peer hears of it."""
        decided = {"failed": dict(failed), "decided_at": self._clock()}
        with self._database.write() as session:
            session.execute(update(Commitment).where(Commitment.id == commitment_id).values(**decided))

    def told(self, commitment_id: int) -> None:
        """The peer has acknowledged the report."""
        done = {"reported_at": self._clock(), "last_error": ""}
        with self._database.write() as session:
            session.execute(update(Commitment).where(Commitment.id == commitment_id).values(**done))

    def postpone(self, commitment_id: int, pause_s: float, error: str) -> None:
        """The peer could not be told; again later."""
        not_before = self._clock() + timedelta(seconds=pause_s)
        later = {"attempts": Commitment.attempts + 1, "not_before": not_before, "last_error": error}
        with self._database.write() as session:
            session.execute(update(Commitment).where(Commitment.id == commitment_id).values(**later))


def _asked(row: Commitment) -> AskedCommitment:
    return AskedCommitment(
        id=row.id,
        peer=row.peer,
        transaction_uid=row.transaction_uid,
        references=tuple((sop_class, uid) for sop_class, uid in row.references),
        failed=None if row.decided_at is None else {uid: int(reason) for uid, reason in (row.failed or {}).items()},
        attempts=row.attempts,
        received_at=row.received_at,
    )
