"""The tables. Other rooms get frozen values (records.py); rows never leave this room."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, DateTime, ForeignKey, Index, MetaData, String, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from dicomnode.domain.rejection import KEY_OBJECT_SELECTION
from dicomnode.domain.states import DeliveryState, JobState, SeriesState


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC outside; naive UTC text in SQLite, which knows no zones. A naive value is a mistake and is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone must not reach the database")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_NOTES = text(f"sop_class_uid = '{KEY_OBJECT_SELECTION}' AND rejected IS NULL")


def _purged(table: str) -> tuple[Index, Index]:
    """Partial: an image on its way in writes to none of these."""
    purged, to_remove = text("purged_at IS NOT NULL"), text("purged_at IS NOT NULL AND path != ''")
    return (
        Index(f"ix_{table}_purged", "purged_at", sqlite_where=purged, postgresql_where=purged),
        Index(f"ix_{table}_to_remove", "path", sqlite_where=to_remove, postgresql_where=to_remove),
    )


def _held(table: str) -> Index:
    """Partial: what waits for an operator is asked for often and is little."""
    held = text("held != ''")
    return Index(f"ix_{table}_held", "id", sqlite_where=held, postgresql_where=held)


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    values = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=column)


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can name them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON(), list[Any]: JSON()}  # noqa: RUF012


class Mark(Base):
    """A time that the node remembers about itself, such as its last clean stop."""

    __tablename__ = "marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Association(Base):
    """One incoming association. `last_study_id`: what it sent last, so that a busy sender holds only what it still sends."""

    __tablename__ = "associations"

    id: Mapped[int] = mapped_column(primary_key=True)
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    address: Mapped[str]
    opened_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    how: Mapped[str] = mapped_column(default="")
    instances: Mapped[int] = mapped_column(default=0)
    last_instance_at: Mapped[datetime | None]
    last_study_id: Mapped[int | None]
    node: Mapped[str | None]  # to which of the nodes that share the rows; "" where there is one

    __table_args__ = (Index(None, "ended_at"),)


class Study(Base):
    """One study. `arrivals` counts new instances; routing has settled the study when `unsettled` is false."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[str]
    issuer_of_patient_id: Mapped[str]
    patient_name: Mapped[str]
    patient_birth_date: Mapped[str]
    patient_sex: Mapped[str]
    accession_number: Mapped[str] = mapped_column(index=True)
    study_date: Mapped[str]
    study_time: Mapped[str]
    study_description: Mapped[str]
    received_at: Mapped[datetime]
    last_arrival_at: Mapped[datetime]
    arrivals: Mapped[int] = mapped_column(default=0)
    unsettled: Mapped[bool] = mapped_column(default=False, index=True)
    held: Mapped[str] = mapped_column(default="")  # why no job of this study starts and no result leaves; "" = not held
    purged_at: Mapped[datetime | None]  # its sources' bytes were removed by retention

    __table_args__ = (Index(None, "received_at"), Index(None, "purged_at", "last_arrival_at"), _held("studies"))


class Series(Base):
    """One series. `attributes` are those of its first instance. `generation` counts reopenings by late images."""

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str] = mapped_column(index=True)
    modality: Mapped[str]
    sop_class_uid: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    address: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    ours: Mapped[bool]
    instances: Mapped[int] = mapped_column(default=0)
    generation: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    last_arrival_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    forced: Mapped[bool] = mapped_column(default=False)
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)
    held: Mapped[str] = mapped_column(default="")
    also_called: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # see `other_titles`

    __table_args__ = (_one_of("state", SeriesState), UniqueConstraint("study_id", "series_instance_uid"), _held("series"))


class Instance(Base):
    """One stored instance. `path` is relative to the store's root; "" once its bytes were purged.

    keep_until: until then it is exempt from purging, for somebody was told that it is safe here. rejected: the code of the
    rejection note that named it (PS3.16 CID 7011), no job looks at it; "" in a key object selection that was examined.
    """

    __tablename__ = "instances"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    association_id: Mapped[int | None]
    sop_instance_uid: Mapped[str] = mapped_column(unique=True)
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    pixel_digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    instance_number: Mapped[int | None]
    number_of_frames: Mapped[int]
    image_type: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    ours: Mapped[bool]
    received_at: Mapped[datetime] = mapped_column(index=True)
    keep_until: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
    rejected: Mapped[str | None]

    __table_args__ = (*_purged("instances"), Index("ix_instances_notes", "id", sqlite_where=_NOTES, postgresql_where=_NOTES))


class HeaderVersion(Base):
    """The patient and study attributes as some source gave them; version 1 is the first that arrived."""

    __tablename__ = "header_versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    version: Mapped[int]
    attributes: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("study_id", "version"),)


class Conflict(Base):
    """An instance that contradicts what is stored. Open (`decided_at` null) until an operator decides."""

    __tablename__ = "conflicts"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"))
    kind: Mapped[str]
    sop_instance_uid: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    transfer_syntax_uid: Mapped[str | None]
    attributes: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    received_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]


class Verdict(Base):
    """What one route said of one series at the last judgement."""

    __tablename__ = "verdicts"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    route: Mapped[str]
    matched: Mapped[bool]
    chosen: Mapped[bool]
    why: Mapped[str]
    judged_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("series_id", "route"),)


class Job(Base):
    """One run of one pipeline; `version` counts the sets of results of its study, pipeline and scope.

    scope_series_id: 0 where the study has one set of results (select = "best"), else the series (select = "each").
    starts never goes back and fences; attempt is given back by a restart of the node. rank_at: created_at, earlier by so much
    time as its priority is worth: who has waited that long overtakes.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"), index=True)
    series_generation: Mapped[int] = mapped_column(default=0)
    scope_series_id: Mapped[int] = mapped_column(default=0)
    route: Mapped[str]
    pipeline: Mapped[str]
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    rank_at: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0)
    starts: Mapped[int] = mapped_column(default=0)
    starts_forgiven: Mapped[int] = mapped_column(default=0)  # starts up to an operator's retry, no longer counted
    crashes: Mapped[int] = mapped_column(default=0)
    notices: Mapped[int | None]  # how often a worker began to say "not run", where the job's own workers no longer could
    worker: Mapped[str] = mapped_column(default="")
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime]
    held: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    preset_refusal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    others: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))  # JobInput of each further series that it reads
    outcome: Mapped[str] = mapped_column(default="")  # how the last attempt ended; stays when the job is superseded
    reason_code: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    remedy: Mapped[str] = mapped_column(default="")
    findings: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    notes: Mapped[list[Any]] = mapped_column(default=list)
    timings_s: Mapped[dict[str, Any]] = mapped_column(default=dict)

    __table_args__ = (
        _one_of("state", JobState),
        UniqueConstraint("study_id", "pipeline", "scope_series_id", "version"),
        Index(None, "state", "not_before"),
    )


class Result(Base):
    """One result object of a job, spooled."""

    __tablename__ = "results"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(8))
    sop_class_uid: Mapped[str]
    sop_instance_uid: Mapped[str] = mapped_column(unique=True)
    series_instance_uid: Mapped[str]
    study_instance_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sources: Mapped[list[Any]]
    sending_order: Mapped[int]
    description: Mapped[str]
    stale: Mapped[str | None]  # why it no longer says what is known
    purged_at: Mapped[datetime | None]
    profiles: Mapped[list[Any] | None]  # whose destinations get it at once; None: all
    fallback_profiles: Mapped[list[Any] | None]  # whose destinations get it in place of `replaces`, once they refuse a class
    replaces: Mapped[list[Any] | None]  # SOP Instance UIDs
    when_refused: Mapped[str | None]  # SOP Class UID
    created_at: Mapped[datetime]

    __table_args__ = _purged("results")


class Delivery(Base):
    """One result instance on its way to one destination."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    destination: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    starts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str] = mapped_column(default="")
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime]  # of the next attempt; once sent, of the next question for proof
    created_at: Mapped[datetime]
    tried_since: Mapped[datetime | None]  # first claim: 14 days later it is held
    sent_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str] = mapped_column(default="")
    proof: Mapped[str] = mapped_column(default="")
    commitment_uid: Mapped[str | None]  # Transaction UID of the last storage commitment that was asked for
    earlier_commitment_uid: Mapped[str | None]  # of the one before, whose report may still come

    __table_args__ = (
        _one_of("state", DeliveryState),
        UniqueConstraint("result_id", "destination"),
        Index(None, "state", "destination", "not_before"),
        Index(None, "commitment_uid"),
        Index(None, "earlier_commitment_uid"),
    )


class Commitment(Base):
    """A storage commitment that a peer asked of us. references: [[SOP class, SOP instance], …]; failed: instance → reason."""

    __tablename__ = "commitments"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str]
    peer: Mapped[str]
    references: Mapped[list[Any]]
    received_at: Mapped[datetime]
    failed: Mapped[dict[str, Any] | None]
    decided_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]  # of the next attempt to report
    last_error: Mapped[str] = mapped_column(default="")

    __table_args__ = (UniqueConstraint("peer", "transaction_uid"), Index(None, "reported_at", "not_before"))


class AuditRow(Base):
    """One transition. Never updated."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    row_id: Mapped[int]
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    event: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str]
    actor: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (Index(None, "kind", "row_id"),)
