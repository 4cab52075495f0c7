"""The rows of a node that has worked for a hundred days."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert

from dicomnode.registry.engine import Database
from dicomnode.registry.tables import AuditRow, Base, Delivery, HeaderVersion, Instance, Job, Result, Series, Study, Verdict

STUDIES, SERIES, IMAGES, KINDS = 10_000, 3, 10, ("SEG", "SR", "SC")
CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"


def _study(number: int, at: datetime) -> dict[str, Any]:
    texts = ("issuer_of_patient_id", "patient_sex", "study_time", "study_description", "held")
    return {
        "id": number, "study_instance_uid": f"1.9.{number}", "patient_id": f"P{number}", "patient_name": f"Doe^{number}",
        "patient_birth_date": "19700101", "accession_number": f"ACC{number}", "study_date": "20261121", "received_at": at,
        "last_arrival_at": at, "arrivals": IMAGES, "unsettled": False, **dict.fromkeys(texts, ""),
    }  # fmt: skip


def _series(number: int, at: datetime) -> list[dict[str, Any]]:
    return [
        {
            "id": number * SERIES + one, "study_id": number, "series_instance_uid": f"1.9.{number}.{one}", "modality": "CT",
            "sop_class_uid": CT, "attributes": {"Modality": "CT"}, "calling_ae": "CT", "called_ae": "NODE", "address": "::1",
            "state": "complete", "ours": False, "instances": IMAGES, "generation": 0, "received_at": at, "opened_at": at,
            "last_arrival_at": at, "completed_at": at, "forced": False, "evidence": {}, "held": "",
        }
        for one in range(SERIES)
    ]  # fmt: skip


def _instances(number: int, at: datetime) -> list[dict[str, Any]]:
    return [
        {
            "series_id": number * SERIES, "sop_instance_uid": f"1.9.{number}.0.{one}", "sop_class_uid": CT,
            "transfer_syntax_uid": "1.2", "path": f"instances/{number}/{one}", "sha256": "", "pixel_digest": "",
            "size_bytes": 1, "instance_number": one, "number_of_frames": 1, "image_type": "", "attributes": {}, "ours": False,
            "received_at": at,
        }
        for one in range(IMAGES)
    ]  # fmt: skip


def _job(number: int, at: datetime) -> dict[str, Any]:
    return {
        "id": number, "study_id": number, "series_id": number * SERIES, "route": "chest-ct", "pipeline": "chest_ct",
        "version": 1, "state": "done", "not_before": at, "created_at": at, "rank_at": at, "finished_at": at,
        "series_generation": 0, "scope_series_id": 0, "priority": 0, "attempt": 1, "starts": 1, "starts_forgiven": 0,
        "crashes": 0, "notes": [], "timings_s": {},
        **dict.fromkeys(("worker", "held", "outcome", "reason_code", "reason", "remedy"), ""),
    }  # fmt: skip


def _results(number: int, at: datetime) -> list[dict[str, Any]]:
    return [
        {
            "id": number * 3 + order, "job_id": number, "kind": kind, "sop_class_uid": SEG,
            "sop_instance_uid": f"2.25.{number}{order}", "series_instance_uid": "1", "study_instance_uid": f"1.9.{number}",
            "transfer_syntax_uid": "1.2", "path": f"spool/J{number}/{kind}", "sha256": "", "size_bytes": 1, "sources": [],
            "sending_order": order, "description": "", "created_at": at,
        }
        for order, kind in enumerate(KINDS)
    ]  # fmt: skip


def _deliveries(number: int, at: datetime, until: datetime) -> list[dict[str, Any]]:
    # The last thousand wait: their PACS is away.
    state = "waiting" if number > STUDIES - 1000 else "confirmed"
    return [
        {
            "result_id": number * 3 + order, "job_id": number, "destination": "pacs", "state": state, "attempt": 1,
            "starts": 1, "worker": "", "not_before": until + timedelta(hours=1), "created_at": at,
            "last_error": "", "proof": "",
        }
        for order in range(3)
    ]  # fmt: skip


def _others(number: int, at: datetime) -> list[tuple[type[Base], dict[str, Any]]]:
    audit = [
        {
            "kind": kind,
            "row_id": number,
            "from_state": "",
            "to_state": "done",
            "event": event,
            "reason": "",
            "actor": "",
            "at": at,
        }
        for kind in ("series", "job", "delivery")
        for event in ("created", "claimed", "finished")
    ]
    verdict = {"series_id": number * SERIES, "route": "chest-ct", "matched": True, "chosen": True, "why": "", "judged_at": at}
    header = {"study_id": number, "version": 1, "attributes": {"PatientID": f"P{number}"}, "received_at": at}
    return [*((AuditRow, one) for one in audit), (Verdict, verdict), (HeaderVersion, header)]


def fill(database: Database, until: datetime) -> None:
    """A hundred days of a hundred studies, all done; the results of the last thousand wait for a PACS that is away."""
    rows: dict[type[Base], list[dict[str, Any]]] = {}
    for number in range(1, STUDIES + 1):
        at = until - timedelta(minutes=14.4 * (STUDIES - number) + 3600)
        rows.setdefault(Study, []).append(_study(number, at))
        rows.setdefault(Series, []).extend(_series(number, at))
        rows.setdefault(Instance, []).extend(_instances(number, at))
        rows.setdefault(Job, []).append(_job(number, at))
        rows.setdefault(Result, []).extend(_results(number, at))
        rows.setdefault(Delivery, []).extend(_deliveries(number, at, until))
        for kind, row in _others(number, at):
            rows.setdefault(kind, []).append(row)
    _keep(database, rows)


def fill_queue(database: Database, jobs: int, now: datetime) -> None:
    """So many studies whose jobs wait for a worker; nothing else."""
    waiting = {"state": "queued", "attempt": 0, "starts": 0, "finished_at": None}
    numbers = range(1, jobs + 1)
    rows: dict[type[Base], list[dict[str, Any]]] = {
        Study: [_study(number, now) for number in numbers],
        Series: [row for number in numbers for row in _series(number, now)],
        Instance: [row for number in numbers for row in _instances(number, now)],
        Job: [_job(number, now) | waiting for number in numbers],
    }
    _keep(database, rows)


def _keep(database: Database, rows: Mapping[type[Base], Sequence[dict[str, Any]]]) -> None:
    with database.write() as session:
        for kind, of_kind in rows.items():
            session.execute(insert(kind), of_kind)
        if not database.is_sqlite:
            for table in ("studies", "series", "jobs", "results"):
                session.connection().exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT coalesce(max(id), 1) FROM {table}))"  # noqa: S608
                )
    with database.write() as session:
        session.connection().exec_driver_sql("ANALYZE")
