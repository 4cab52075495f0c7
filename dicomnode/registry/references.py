"""What a result points at: is it still here, as it was when the result was made?"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.registry.tables import Conflict, Instance, Result

_AT_ONCE = 500  # in one IN (…): old SQLite takes 999 parameters


def problem(session: Session, sop_instance_uids: Sequence[str]) -> str:
    """Why an object that names these instances must not leave; "" if each is a stored image that stands, or a result of ours.

    A result describes the images that its job read. What was since rejected, purged or contradicted by its sender may have been
    replaced in the archive too: the result would point at nothing, or at another picture.
    """
    named = list(dict.fromkeys(sop_instance_uids))
    counts = {"are not known here": 0, "were purged here": 0, "were rejected": 0, "came again with other content": 0}
    for start in range(0, len(named), _AT_ONCE):
        for reason in _reasons(session, named[start : start + _AT_ONCE]):
            counts[reason] += 1
    said = [f"{count} {reason}" for reason, count in counts.items() if count]
    return f"of the {len(named)} instances that it names {' and '.join(said)}" if said else ""


def _reasons(session: Session, named: Sequence[str]) -> list[str]:
    columns = (Instance.sop_instance_uid, Instance.purged_at, Instance.rejected)
    stored = {
        row.sop_instance_uid: row for row in session.execute(select(*columns).where(Instance.sop_instance_uid.in_(named)))
    }
    # A rejection note of ours names results; those that were purged stand in the archive all the same, even if they came back.
    results = set(session.scalars(select(Result.sop_instance_uid).where(Result.sop_instance_uid.in_(named))))
    contested = (Conflict.sop_instance_uid.in_(named), Conflict.decided_at.is_(None))
    in_quarantine = set(session.scalars(select(Conflict.sop_instance_uid).where(*contested)))
    reasons = []
    for uid in named:
        row = stored.get(uid)
        if uid in in_quarantine:
            reasons.append("came again with other content")
        elif row is None and uid not in results:
            reasons.append("are not known here")
        elif row is not None and row.rejected:
            reasons.append("were rejected")
        elif row is not None and row.purged_at is not None and uid not in results:
            reasons.append("were purged here")
    return reasons
