"""Statements for the few ways that are gone for every image: compiled once, run on the driver's cursor.

SQLAlchemy builds the SQL, for the database at hand, and converts the values by its types; only its execution, some 50 µs a
statement, is left out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Dialect


class Statement:
    """One compiled statement. Its values are given by the names of its bind parameters."""

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        self._sql = str(compiled)
        self._names: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positiontup else None
        self._fixed = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        self._processors: dict[str, Callable[[Any], Any]] = {}
        for name, bound in compiled.binds.items():
            processor = bound.type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                self._processors[name] = processor

    def run(self, cursor: Any, values: Mapping[str, object]) -> Any:
        """Execute it on a cursor of the driver; what that gives."""
        converted: dict[str, object] = {**self._fixed, **values}
        for name, processor in self._processors.items():
            converted[name] = processor(converted[name])
        return cursor.execute(self._sql, converted if self._names is None else [converted[name] for name in self._names])
