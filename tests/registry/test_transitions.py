"""Every (state, event) of every kind, in the table, in the database and in the audit."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.states import (
    DeliveryEvent,
    DeliveryState,
    ImpossibleTransition,
    JobEvent,
    JobState,
    SeriesEvent,
    SeriesState,
    diagram,
)
from dicomnode.registry import Registry
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import AuditRow, Delivery, Job, Result, Series, Study
from dicomnode.registry.transitions import DELIVERY, JOB, KINDS, SERIES, Kind, change
from tests.registry.samples import START

EVENTS: dict[str, type[StrEnum]] = {"series": SeriesEvent, "job": JobEvent, "delivery": DeliveryEvent}
PAIRS = [(kind, state, event) for kind in KINDS for state, event in product(kind.states, EVENTS[kind.name])]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('states')}/x.db"
    else:
        url = request.getfixturevalue("postgresql").create("states")
    registry = Registry(url)
    registry.prepare()
    registry.close()
    one = Database(url)
    yield one
    one.close()


_count = iter(range(1, 1_000_000))


def row_in_state(database: Database, kind: Kind, state: str) -> int:
    """A row of this kind in this state, with the parents that it needs; its id."""
    number = next(_count)
    texts = dict.fromkeys(
        ("patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex", "accession_number",
         "study_date", "study_time", "study_description"), "",
    )  # fmt: skip
    with database.write() as session:
        study = Study(study_instance_uid=f"1.{number}", received_at=START, last_arrival_at=START, **texts)
        session.add(study)
        session.flush()
        series = Series(
            study_id=study.id, series_instance_uid="1", modality="CT", sop_class_uid="1", attributes={}, calling_ae="",
            called_ae="", address="", state=state if kind is SERIES else "arriving", ours=False, received_at=START,
            opened_at=START, last_arrival_at=START,
        )  # fmt: skip
        job = Job(
            study_id=study.id, route="r", pipeline="p", version=1, state=state if kind is JOB else "done", not_before=START,
            created_at=START,
        )  # fmt: skip
        session.add_all([series, job])
        session.flush()
        result = Result(
            job_id=job.id, kind="SEG", sop_class_uid="1", sop_instance_uid=f"2.{number}", series_instance_uid="1",
            study_instance_uid="1", transfer_syntax_uid="1", path="x", sha256="", size_bytes=1, sources=[],
            sending_order=0, description="", created_at=START,
        )  # fmt: skip
        session.add(result)
        session.flush()
        delivery = Delivery(
            result_id=result.id, job_id=job.id, destination="pacs", state=state if kind is DELIVERY else "waiting",
            not_before=START, created_at=START,
        )  # fmt: skip
        session.add(delivery)
        session.flush()
        return {"series": series.id, "job": job.id, "delivery": delivery.id}[kind.name]


def state_and_audit(database: Database, kind: Kind, row_id: int) -> tuple[str, int]:
    with database.read() as session:
        state = session.execute(select(kind.row.__table__.c.state).where(kind.row.__table__.c.id == row_id)).scalar_one()
        rows = session.scalar(select(func.count()).where(AuditRow.kind == kind.name, AuditRow.row_id == row_id))
    return state, rows or 0


@pytest.mark.parametrize(("kind", "state", "event"), PAIRS, ids=[f"{k.name}-{s.value}-{e.value}" for k, s, e in PAIRS])
def test_each_event_moves_a_row_by_the_table_or_changes_nothing(
    database: Database, kind: Kind, state: StrEnum, event: StrEnum
) -> None:
    row_id = row_in_state(database, kind, state.value)
    after = kind.transitions.get((state, event))
    if after is None:
        with pytest.raises(ImpossibleTransition), database.write() as session:
            change(session, kind, row_id, state.value, event, now=START)
        assert state_and_audit(database, kind, row_id) == (state.value, 0)
    else:
        with database.write() as session:
            assert change(session, kind, row_id, state.value, event, now=START) == after.value
        assert state_and_audit(database, kind, row_id) == (after.value, 1)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_row_that_is_no_longer_in_that_state_is_left_alone(database: Database, kind: Kind) -> None:
    (state, event), _ = next(iter(kind.transitions.items()))
    other = next(one for one in kind.states if one is not state)
    row_id = row_in_state(database, kind, other.value)
    with pytest.raises(StaleUpdate), database.write() as session:
        change(session, kind, row_id, state.value, event, now=START)
    assert state_and_audit(database, kind, row_id) == (other.value, 0)


def test_a_fence_that_does_not_hold_changes_nothing(database: Database) -> None:
    row_id = row_in_state(database, JOB, JobState.RUNNING.value)
    with pytest.raises(StaleUpdate), database.write() as session:
        change(session, JOB, row_id, "running", JobEvent.FINISHED, now=START, fence={"worker": "somebody else"})
    assert state_and_audit(database, JOB, row_id) == ("running", 0)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_the_database_itself_refuses_a_state_that_does_not_exist(database: Database, kind: Kind) -> None:
    with pytest.raises(IntegrityError, match=r"CHECK constraint failed|violates check constraint") as caught:
        row_in_state(database, kind, "lost")
    assert "parameters hidden" in str(caught.value)


def test_nobody_else_writes_a_state() -> None:
    folder = Path(str(__import__("dicomnode.registry").registry.__file__)).parent
    writers = {
        path.name
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if "values(state=" in line.replace(" ", "") or ".state = " in line
    }
    assert writers == {"transitions.py"}


def test_one_study_pipeline_and_version_has_one_job(database: Database) -> None:
    row_id = row_in_state(database, JOB, "queued")
    with database.read() as session:
        job = session.execute(select(Job).where(Job.id == row_id)).scalar_one()
        same = {name: getattr(job, name) for name in Job.__table__.c.keys() if name != "id"}  # noqa: SIM118
    with pytest.raises(IntegrityError, match=r"UNIQUE|violates unique constraint"), database.write() as session:
        session.execute(insert(Job).values(**same))


def test_every_state_is_reached_and_the_diagram_shows_every_transition() -> None:
    beginnings = {SeriesState.ARRIVING, JobState.QUEUED, DeliveryState.WAITING}
    for kind in KINDS:
        assert set(kind.states) == set(kind.transitions.values()) | (beginnings & set(kind.states))
        drawn = diagram(kind.transitions).splitlines()
        assert drawn[0] == "stateDiagram-v2"
        assert len(drawn) == len(kind.transitions) + 1
