"""Series that were sent to several of our AE titles: stored once, remembered under each, for routes may match any of them.

The first title is a column of the series. A further one stands in `also_called` with the times of the first and the last image
that came to it; the last one moves while the study is not settled. After that whoever sends the same again starts nothing.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.received import Received
from dicomnode.registry import keys
from dicomnode.registry.tables import Association, Instance, Series, Study
from dicomnode.registry.text import clean

# Of a quiet period of seconds nothing is lost, and a thousand images that come again are a few transactions.
_OFTEN_ENOUGH = timedelta(seconds=0.2)


def says_something(session: Session, received: Received) -> bool:
    """Whether this stored instance, that came once more, has to be noted. Reads only."""
    found = _series_of(session, received)
    return found is not None and _says_something(found, received)


def note(session: Session, received: Received) -> None:
    """A stored instance came once more, unchanged: its study is judged again if it came to another title of ours."""
    found = _series_of(session, received)
    if found is None or not _says_something(found, received):
        return
    session.execute(select(Study.id).where(Study.id == found.study_id).with_for_update())
    found = _series_of(session, received)  # as it is now that nobody else writes
    if found is None or not _says_something(found, received):
        return
    now, title = received.received_at, clean(received.called_ae)
    times = times_of(found.also_called)
    first, last = times.get(title, (now, now))
    _keep(session, found.id, {**times, title: (first, max(last, now))})
    values = {
        "arrivals": Study.arrivals + 1,
        "unsettled": True,
        "last_arrival_at": max(now, found.last_arrival_at),
    }
    session.execute(update(Study).where(Study.id == found.study_id).values(**values))
    parts = keys.split(received.association_key)
    if parts is not None and parts[0] == "A":  # while it goes on sending, this study is waited for
        sends = {"last_instance_at": now, "last_study_id": found.study_id}
        session.execute(update(Association).where(Association.id == parts[1]).values(**sends))


def note_new(session: Session, series_id: int, received: Received) -> None:
    """A new instance of a known series came. The caller holds the study and lets it be judged."""
    row = session.execute(select(Series.called_ae, Series.also_called).where(Series.id == series_id)).one()
    title = clean(received.called_ae)
    times = times_of(row.also_called)
    if title != row.called_ae and title not in times:
        _keep(session, series_id, {**times, title: (received.received_at, received.received_at)})


def times_of(also_called: Mapping[str, Any] | None) -> dict[str, tuple[datetime, datetime]]:
    """Title → first and last arrival there."""
    given = also_called or {}
    return {title: (datetime.fromisoformat(first), datetime.fromisoformat(last)) for title, (first, last) in given.items()}


def _keep(session: Session, series_id: int, times: Mapping[str, tuple[datetime, datetime]]) -> None:
    also_called = {title: [first.isoformat(), last.isoformat()] for title, (first, last) in times.items()}
    session.execute(update(Series).where(Series.id == series_id).values(also_called=also_called))


def _series_of(session: Session, received: Received) -> Row[Any] | None:
    columns = (Series.id, Series.study_id, Series.called_ae, Series.also_called, Study.unsettled, Study.last_arrival_at)
    return session.execute(
        select(*columns)
        .join(Study, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(
            Instance.sop_instance_uid == received.sop_instance_uid,
            Series.series_instance_uid == received.series_instance_uid,
            ~Instance.ours,
            ~Series.ours,
        )
    ).one_or_none()


def _says_something(found: Row[Any], received: Received) -> bool:
    title = clean(received.called_ae)
    if title == found.called_ae:
        return False
    times = times_of(found.also_called).get(title)
    return times is None or bool(found.unsettled and received.received_at - times[1] >= _OFTEN_ENOUGH)
