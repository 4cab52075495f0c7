"""`among(column, values)`: IN (…) for lists of any length, as one parameter.

Each value of an ordinary IN (…) is a parameter of its own; SQLite takes 32,766 of them in a statement (limits.html, 9),
PostgreSQL's protocol 65,535. A study of more series, or a retrieval that names more images, must not fail for that.
"""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Boolean, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement, FunctionElement


class _Among(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True
    name = "among"


class _AmongNumbers(_Among):
    inherit_cache = True
    name = "among_numbers"


def among(column: InstrumentedAttribute[str], values: Collection[str]) -> ColumnElement[bool]:
    """Whether the column's text is one of these."""
    return _Among(column, _as_json(values))


def among_numbers(
    column: "InstrumentedAttribute[int] | InstrumentedAttribute[int | None]", values: Collection[int]
) -> ColumnElement[bool]:
    """Whether the column's number is one of these."""
    return _AmongNumbers(column, _as_json(values))


def _as_json(values: Collection[str] | Collection[int]) -> Any:
    return bindparam(None, json.dumps(list(values)), type_=Text(), unique=True)


@compiles(_Among, "sqlite")
def _on_sqlite(element: _Among, compiler: SQLCompiler, **more: Any) -> str:
    column, values = (compiler.process(one, **more) for one in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608 - both are parts of SQLAlchemy's own making


@compiles(_Among, "postgresql")
def _on_postgresql(element: _Among, compiler: SQLCompiler, **more: Any) -> str:
    column, values = (compiler.process(one, **more) for one in element.clauses)
    value = "CAST(value AS BIGINT)" if isinstance(element, _AmongNumbers) else "value"
    return f"({column} IN (SELECT {value} FROM json_array_elements_text(CAST({values} AS JSON)) AS listed (value)))"  # noqa: S608
