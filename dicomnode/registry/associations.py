"""Incoming associations: noted without a sync of their own, for many of them bring one image each."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, insert, update
from sqlalchemy.engine import Dialect

from dicomnode.registry import keys
from dicomnode.registry.engine import Database, Unit
from dicomnode.registry.statements import Statement
from dicomnode.registry.tables import Association
from dicomnode.registry.text import clean


class Associations:
    """Their beginning is durable with their first instance, their end with whatever is written next."""

    def __init__(self, database: Database, node: str = "") -> None:
        """node: whose they are, where several nodes share the rows."""
        self._database, self._node = database, node
        self._statements: tuple[Statement, Statement] | None = None

    def opened(self, calling: str, called: str, address: str, now: datetime) -> str:
        """Note an association; returns its key."""
        values = {"calling_ae": clean(calling), "called_ae": clean(called), "address": address, "opened_at": now}

        def note(unit: Unit) -> int:
            opened, _ = self._for(unit.dialect)
            return int(opened.run(unit.cursor, values).fetchone()[0])

        return f"A{self._database.keep(note, relaxed=True)}"

    def ended(self, key: str, how: str, now: datetime) -> None:
        """Note how an association ended; the first word counts."""
        self.all_ended([(key, how, now)])

    def all_ended(self, ends: Sequence[tuple[str, str, datetime]]) -> None:
        """The same of many (key, how, when), in one transaction."""
        rows = [{"of": keys.row_id(key, "A"), "now": when, "as": how} for key, how, when in ends]

        def note(unit: Unit) -> None:
            _, ended = self._for(unit.dialect)
            for row in rows:
                ended.run(unit.cursor, row)

        self._database.keep(note, relaxed=True)

    def _for(self, dialect: Dialect) -> tuple[Statement, Statement]:
        if self._statements is None:
            table, columns = Association.__table__, Association.__table__.c
            given = ("calling_ae", "called_ae", "address", "opened_at")
            opened = insert(table).values(  # type: ignore[arg-type]
                {name: bindparam(name, type_=columns[name].type) for name in given}
                | {"instances": 0, "how": "", "node": self._node}
            )
            ended = update(table).where(columns.id == bindparam("of"), columns.ended_at.is_(None))  # type: ignore[arg-type]
            values = {"ended_at": bindparam("now", type_=columns.ended_at.type), "how": bindparam("as")}
            self._statements = Statement(opened.returning(columns.id), dialect), Statement(ended.values(values), dialect)
        return self._statements
