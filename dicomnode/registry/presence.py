"""Which of the nodes that share these rows live: each says so every few seconds, under its name and what tells it apart."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.clock import type_clock
from dicomnode.registry import receiving
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Association, Mark
from dicomnode.registry.trouble import begun_anew

GONE_AFTER = timedelta(minutes=2)  # without a word
_FORGOTTEN_AFTER = timedelta(days=1)
_MARK = "node:"


@begun_anew
class Presence:
    """The registry's part for the nodes themselves. Each call is one transaction."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def say(self, node: str, identity: str) -> None:
        """This node lives. identity: of its machine and run folder, hexadecimal."""
        now = self._clock()
        with self._database.write() as session:
            session.merge(Mark(name=f"{_MARK}{node}:{identity}", at=now))

    def namesakes(self, node: str, identity: str) -> dict[str, datetime]:
        """Others of the same name that were not seen to end: identity → when it last said that it lives, by its own clock."""
        with self._database.read() as session:
            marks = session.scalars(select(Mark).where(Mark.name.startswith(f"{_MARK}{node}:", autoescape=True)))
            found = {mark.name.removeprefix(f"{_MARK}{node}:"): mark.at for mark in marks}
        return {other: at for other, at in found.items() if other != identity and ":" not in other}

    def leave(self, node: str, identity: str) -> None:
        """It ends in order: nothing of it is open."""
        now = self._clock()
        with self._database.write() as session:
            session.execute(delete(Mark).where(Mark.name == f"{_MARK}{node}:{identity}"))
            receiving.all_associations_ended(session, "its node was stopped", now, node=node)

    def forget(self, node: str, identity: str) -> None:
        """Whoever that was is gone."""
        with self._database.write() as session:
            session.execute(delete(Mark).where(Mark.name == f"{_MARK}{node}:{identity}"))


def end_associations_of_the_gone(session: Session, ended_before: datetime, now: datetime) -> int:
    """A node that vanished ends its associations no more, and completeness would wait for them to the last; how many ended.

    ended_before: as of leases: while the database was away nobody could say that it lives. A node of which nothing was ever
    heard may be of an older version: its associations are its own.
    """
    marks = session.execute(select(Mark.name, Mark.at).where(Mark.name.startswith(_MARK, autoescape=True))).all()
    last: dict[str, datetime] = {}
    for name, at in marks:
        node = name.removeprefix(_MARK).rpartition(":")[0]
        last[node] = max(at, last.get(node, at))
    ended = 0
    for node in sorted(node for node, at in last.items() if at < ended_before - GONE_AFTER):
        still_open = (Association.ended_at.is_(None), func.coalesce(Association.node, "") == node)
        values = {"ended_at": now, "how": "its node was not heard of any more"}
        ended += len(session.execute(update(Association).where(*still_open).values(**values).returning(Association.id)).all())
    old = (Mark.name.startswith(_MARK, autoescape=True), Mark.at < ended_before - _FORGOTTEN_AFTER)
    session.execute(delete(Mark).where(*old))
    return ended
