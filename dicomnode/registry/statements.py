"""Statements for the few ways that are gone for every image: compiled once, run on the driver's cursor.

SQLAlchemy builds the SQL, for the database at hand, and converts the values by its types; only its execution, some 50 µs a
statement, is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Dialect

from dicomnode.registry.tables import UtcDateTime

type_converter = Callable[[Any], Any]


class Statement:
    """One compiled statement. Its values are given by the names of its bind parameters.

    fixed: values that stand in the statement itself. converters: name → what makes a value the driver's; shared between
    statements that are used together, each name means the same in all of them.
    """

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        self._sql = str(compiled)
        self.converters = {
            name: converter for name, bound in compiled.binds.items() if (converter := _converter(bound.type, dialect))
        }
        fixed = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        self.fixed = {
            name: value if (to := self.converters.pop(name, None)) is None else to(value) for name, value in fixed.items()
        }
        self._in_places = _in_places(compiled.positiontup)

    def run(self, cursor: Any, values: Mapping[str, object]) -> Any:
        """Execute it on a cursor of the driver; what that gives."""
        return self.execute(cursor, converted({**self.fixed, **values}, self.converters))

    def execute(self, cursor: Any, given: Mapping[str, object]) -> Any:
        """As `run`, of values that are the driver's already, `fixed` among them; there may be others besides."""
        return cursor.execute(self._sql, self._in_places(given))


def converted(values: dict[str, object], converters: Mapping[str, type_converter]) -> dict[str, object]:
    """`values`, those with a converter replaced by the driver's."""
    for name, to in converters.items():
        values[name] = to(values[name])
    return values


def _in_places(names: Sequence[str] | None) -> Callable[[Mapping[str, object]], Any]:
    """For drivers that count parameters; others take the names."""
    if not names:
        return lambda given: given
    if len(names) == 1:
        return lambda given: (given[names[0]],)
    return itemgetter(*names)


def _converter(type_: Any, dialect: Dialect) -> type_converter | None:
    if isinstance(type_, UtcDateTime):
        return _of_times(dialect)
    processor: type_converter | None = type_.dialect_impl(dialect).bind_processor(dialect)
    return processor


@lru_cache(maxsize=4)
def _of_times(dialect: Dialect) -> type_converter | None:
    """One for all of them: the same time stands in each statement of an image."""
    processor = UtcDateTime().dialect_impl(dialect).bind_processor(dialect)
    return None if processor is None else lru_cache(maxsize=64)(processor)
