"""Text as people type it when they search: without case and width, and without the separators of a Person Name.

NFKC and case folding make half-width katakana and full-width letters what people type, and the Greek of a header that of a
keyboard; the database's own LIKE folds ASCII only on SQLite.
"""

import unicodedata
from typing import Any

from sqlalchemy import ColumnElement, String, func, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.functions import FunctionElement

_SEPARATORS = {ord("^"): " ", ord("\t"): " "}  # of a name's components (PS3.5 6.2.1.1)


def fold(text: str | None) -> str:
    """`text` for comparison; "^" is a space."""
    return unicodedata.normalize("NFKC", text or "").translate(_SEPARATORS).casefold()


class Folded(FunctionElement[str]):
    """`fold` of a column, in the database."""

    type = String()
    inherit_cache = True
    name = "folded"


@compiles(Folded, "sqlite")
def _on_sqlite(element: Folded, compiler: Any, **options: Any) -> str:
    return f"dicomnode_fold({compiler.process(element.clauses, **options)})"


@compiles(Folded)
def _elsewhere(element: Folded, compiler: Any, **options: Any) -> str:
    """PostgreSQL 13 and later, in a UTF-8 database."""
    return f"lower(replace(normalize({compiler.process(element.clauses, **options)}, NFKC), '^', ' '))"


def provide(session: Session) -> None:
    """Make `Folded` known to this session's connection."""
    if session.get_bind().dialect.name == "sqlite":
        driver: Any = session.connection().connection.driver_connection
        driver.create_function("dicomnode_fold", 1, fold, deterministic=True)


def contains(column: InstrumentedAttribute[str], query: str) -> ColumnElement[bool]:
    """Whether the column holds what was typed: * is a wildcard (PS3.4 C.2.2.2.4) for the whole value, else it is anywhere."""
    return Folded(column).like(_pattern(fold(query)), escape="\\")


def names(column: InstrumentedAttribute[str], query: str) -> ColumnElement[bool]:
    """As `contains`, for a Person Name: a wildcard is matched with each component group (PS3.4 C.2.2.2.1), and names in
    scripts that are typed without spaces are found without them.
    """
    text = fold(query)
    wanted = f"%={_escaped(text)}=%" if "*" in text else _pattern(text)
    value = "=" + Folded(column) + "="
    found = value.like(wanted, escape="\\")
    if text.isascii():
        return found
    return or_(found, func.replace(value, " ", "").like(wanted.replace(" ", ""), escape="\\"))


def _pattern(text: str) -> str:
    return _escaped(text) if "*" in text else f"%{_escaped(text)}%"


def _escaped(text: str) -> str:
    for special in "\\%_":
        text = text.replace(special, f"\\{special}")
    return text.replace("*", "%")
