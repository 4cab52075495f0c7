"""The one place where a state changes.

`change` applies the table of `domain.states`, updates one row only if it is still as the caller believes (the fence), and
writes the audit row in the same transaction. `began` writes the audit row of a new row. Nobody else writes a `state` column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, CursorResult, update
from sqlalchemy.orm import Session

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.states import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    SERIES_TRANSITIONS,
    DeliveryState,
    JobState,
    SeriesState,
    next_state,
)
from dicomnode.registry.tables import AuditRow, Base, Delivery, Job, Series


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of row that has a life: its letter in keys, its table of rows, its states and its table of transitions."""

    name: str
    letter: str
    row: type[Base]
    states: type[StrEnum]
    transitions: Mapping[tuple[Any, Any], Any]


SERIES = Kind("series", "E", Series, SeriesState, SERIES_TRANSITIONS)
JOB = Kind("job", "J", Job, JobState, JOB_TRANSITIONS)
DELIVERY = Kind("delivery", "D", Delivery, DeliveryState, DELIVERY_TRANSITIONS)
KINDS = (SERIES, JOB, DELIVERY)


def change(
    session: Session,
    kind: Kind,
    row_id: int,
    state: str,
    event: StrEnum,
    *,
    now: datetime,
    reason: str = "",
    actor: str = "",
    fence: Mapping[str, object] | None = None,
    values: Mapping[str, object] | None = None,
) -> str:
    """Let `event` happen to a row that is in `state` and meets `fence` (column → value); returns the new state.

    `values` are written in the same statement. ImpossibleTransition if the table knows no such pair; StaleUpdate if not exactly
    one row fits, and then nothing has changed.
    """
    old = kind.states(state)
    new = next_state(kind.transitions, old, event)
    columns = kind.row.__table__.c
    conditions = [columns.id == row_id, columns.state == old.value]
    conditions += [_column(kind, name) == value for name, value in (fence or {}).items()]
    statement = update(kind.row).where(*conditions).values(state=new.value, **(values or {}))
    result = session.execute(statement, execution_options={"synchronize_session": False})
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        raise StaleUpdate(
            f"{kind.letter}{row_id} is no longer {old.value} in these hands",
            "drop this outcome: somebody else owns the row, or it was cancelled or superseded",
        )
    _note(session, kind, row_id, old.value, new.value, event.value, now, reason, actor)
    return str(new.value)


def began(session: Session, kind: Kind, row_id: int, state: StrEnum, *, now: datetime, reason: str = "") -> None:
    """The audit row of a row that has just been made."""
    _note(session, kind, row_id, "", state.value, "created", now, reason, "")


def remarked(session: Session, kind: Kind, row_id: int, state: str, event: str, *, now: datetime, reason: str) -> None:
    """An audit row for something that leaves the state as it is: a hold, its release."""
    _note(session, kind, row_id, state, state, event, now, reason, "")


def _column(kind: Kind, name: str) -> Column[Any]:
    return kind.row.__table__.c[name]  # type: ignore[return-value]


def _note(
    session: Session, kind: Kind, row_id: int, old: str, new: str, event: str, now: datetime, reason: str, actor: str
) -> None:
    session.add(
        AuditRow(kind=kind.name, row_id=row_id, from_state=old, to_state=new, event=event, reason=reason, actor=actor, at=now)
    )
