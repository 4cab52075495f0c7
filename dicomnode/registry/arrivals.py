"""The way of nearly every image into the registry: a known series of a known study, still arriving, of the same patient.

A few statements then say all that `receiving.add_instance` would (`fast_way`). Whatever is not exactly so goes the careful way,
in the same transaction. Images that come at once share one commit (`GroupCommit`) and these statements.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from dicomnode.domain.errors import DatabaseUnreachable, DicomNodeError
from dicomnode.domain.received import Received
from dicomnode.registry import conflicts, keys, receiving
from dicomnode.registry.engine import Database, Unit
from dicomnode.registry.fast_way import FastWay, KnownSeries, Unusual
from dicomnode.registry.group import GroupCommit
from dicomnode.registry.records import InstanceKeys
from dicomnode.registry.trouble import BrokenOff

_MOST_SERIES, _MOST_IDENTITIES = 1024, 64


@dataclass(frozen=True, slots=True)
class _Arrival:
    received: Received
    ours: bool
    replaces: bool


class Arrivals:
    """Adds instances, alone or together with others that come at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group: GroupCommit[_Arrival, InstanceKeys] = GroupCommit(self._write)
        self._fast: FastWay | None = None
        self._known: dict[tuple[str, str], KnownSeries] = {}  # of the one thread that writes
        self._in_doubt: deque[Received] = deque()
        self._settling = threading.Lock()  # else two threads settle the first and both take one away

    def add(self, received: Received, *, ours: bool, replaces: bool) -> InstanceKeys:
        """See `Registry.add_instance`."""
        return self._group.commit(_Arrival(received, ours, replaces))

    def settle_doubts(self, *, wait: bool = False) -> int:
        """Remove rows that a server may have kept of images for which we said no, because it went away at their commit.

        Their files are gone. Called now and then; raises what a transaction raises, and then it is still to be done. How many.
        wait: where another thread is at it, until that is done; else it is left to it.
        """
        removed = 0
        if self._settling.acquire(blocking=wait):
            try:
                while self._in_doubt:
                    one = self._in_doubt[0]
                    removed += self._database.keep(lambda unit, one=one: _forgotten(unit.connection, one))  # type: ignore[misc]
                    self._in_doubt.popleft()
            finally:
                self._settling.release()
        return removed

    def _write(self, batch: Sequence[_Arrival]) -> Sequence[InstanceKeys | BaseException]:
        # First: what comes again is new then, and finds no row that names another file. Where this fails nothing was begun, so
        # that doubts do not add up in a long outage.
        self.settle_doubts(wait=True)
        try:
            return self._together(batch)
        except DicomNodeError as error:  # the database is away, full or locked: it is so for each of them
            self._doubt(error, batch)
            raise
        except Exception as error:
            if len(batch) == 1 and not isinstance(error, Unusual):
                raise
            return [self._alone(one) for one in batch]

    def _together(self, batch: Sequence[_Arrival]) -> list[InstanceKeys]:
        answers, carefully = self._database.keep(partial(self._in_unit, batch))
        for one, answer in carefully:
            self._learn(one, answer)
        return answers

    def _in_unit(self, batch: Sequence[_Arrival], unit: Unit) -> tuple[list[InstanceKeys], list[tuple[_Arrival, InstanceKeys]]]:
        """All answers, and those among them that the careful way gave."""
        if self._fast is None:
            self._fast = FastWay(unit.dialect)
        ways = [self._way_of(one) for one in batch]
        added = self._fast.go(
            unit.cursor, [(one.received, way) for one, way in zip(batch, ways, strict=True) if way is not None]
        )
        answers: list[InstanceKeys] = []
        carefully: list[tuple[_Arrival, InstanceKeys]] = []
        for one, way in zip(batch, ways, strict=True):
            if way is not None and one.received.sop_instance_uid in added:
                answers.append(InstanceKeys(way.study_key, way.series_key, new=True))
            else:
                answers.append(_carefully(unit.connection, one))
                carefully.append((one, answers[-1]))
        return answers, carefully

    def _alone(self, one: _Arrival) -> InstanceKeys | BaseException:
        """The careful way, in a transaction of its own: what is wrong with one is not the others' loss."""
        self._known.pop(_series_of(one.received), None)
        try:
            return self._database.keep(lambda unit: _carefully(unit.connection, one))
        except Exception as error:  # noqa: BLE001 - raised where it was brought
            self._doubt(error, [one])
            return error

    def _doubt(self, error: Exception, batch: Sequence[_Arrival]) -> None:
        """A server that went away may have kept these."""
        if isinstance(error, DatabaseUnreachable) and not isinstance(error, BrokenOff) and not self._database.is_sqlite:
            self._in_doubt.extend(one.received for one in batch if not one.replaces)

    def _way_of(self, one: _Arrival) -> KnownSeries | None:
        if one.ours or one.replaces:
            return None
        known = self._known.get(_series_of(one.received))
        if known is None or one.received.called_ae not in known.titles:
            return None
        return known if conflicts.identity_of(one.received.attributes) in known.identities else None

    def _learn(self, one: _Arrival, answer: InstanceKeys) -> None:
        """The series is known now, and so is this patient: as its first, as one met before, or as a conflict that is kept."""
        if one.ours or not answer.new:
            return
        if len(self._known) >= _MOST_SERIES:
            self._known.clear()
        study_id, series_id = keys.row_id(answer.study_key, "S"), keys.row_id(answer.series_key, "E")
        known = self._known.get(_series_of(one.received))
        if known is None or (known.study_id, known.series_id) != (study_id, series_id):
            known = KnownSeries(study_id, series_id, answer.study_key, answer.series_key)
            self._known[_series_of(one.received)] = known
        if len(known.identities) >= _MOST_IDENTITIES:
            known.identities.clear()
        known.titles.add(one.received.called_ae)
        known.identities.add(conflicts.identity_of(one.received.attributes))


def _series_of(received: Received) -> tuple[str, str]:
    return received.study_instance_uid, received.series_instance_uid


def _forgotten(connection: Connection, received: Received) -> int:
    """The row of this file, if there is one: under the same UID another file may have come and been acknowledged since."""
    with Session(connection, join_transaction_mode="rollback_only") as session:
        known = receiving.find_instance(session, received.sop_instance_uid)
        if known is None or known.path != received.path:
            return 0
        removed = receiving.forget_instances(session, [received.sop_instance_uid], received.received_at)
        session.commit()
    return removed


def _carefully(connection: Connection, one: _Arrival) -> InstanceKeys:
    """Inside the transaction of `connection`, which stays open."""
    with Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False) as session:
        answer = receiving.add_instance(session, one.received, ours=one.ours, replaces=one.replaces)
        session.commit()  # flushes; the transaction is the connection's
    return answer
