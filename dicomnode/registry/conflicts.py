"""Who is the patient, and what contradicts what: header versions, conflicts and holds. What an operator says: decisions.py."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.errors import UsageError
from dicomnode.domain.received import Received
from dicomnode.registry.records import STUDY_CONFLICTS, ConflictKind
from dicomnode.registry.tables import Conflict, HeaderVersion, Instance, Job, Result, Series, Study
from dicomnode.registry.text import header_text
from dicomnode.registry.transitions import SERIES, remarked

# Column of Study → DICOM keyword.
STUDY_COLUMNS = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
}
_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate")
# What ties an object to a person: compared with the newest header before each send.
_TIES = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")

HOLD_REASONS = {
    ConflictKind.HEADER: "an instance came again with other patient or study attributes",
    ConflictKind.IDENTITY: "its instances name different patients",
    ConflictKind.PIXELS: "an instance came again with other pixels",
    ConflictKind.GEOMETRY: "an instance came again with another position or size",
}


def study_columns(attributes: Mapping[str, str]) -> dict[str, str]:
    """The columns of a study's row from the headers of its first instance."""
    return {column: header_text(attributes, keyword) for column, keyword in STUDY_COLUMNS.items()}


def keep_header_version(session: Session, study_id: int, attributes: Mapping[str, str], now: datetime) -> None:
    """The patient and study attributes of `attributes` as the study's next version."""
    newest = session.scalar(select(func.max(HeaderVersion.version)).where(HeaderVersion.study_id == study_id)) or 0
    kept = {keyword: header_text(attributes, keyword) for keyword in STUDY_COLUMNS.values()}
    session.add(HeaderVersion(study_id=study_id, version=newest + 1, attributes=kept, received_at=now))


def check_identity(session: Session, study: Study, series_id: int, received: Received) -> None:
    """Hold the study if this instance names another patient; an identity that was met before says nothing new."""
    first = {keyword: getattr(study, column) for column, keyword in STUDY_COLUMNS.items()}
    if same_identity(first, received.attributes):
        return
    versions = session.scalars(select(HeaderVersion).where(HeaderVersion.study_id == study.id))
    if any(same_identity(version.attributes, received.attributes) for version in versions):
        return
    keep_header_version(session, study.id, received.attributes, received.received_at)
    _keep_conflict(session, study.id, series_id, received, ConflictKind.IDENTITY, path="")
    study.held = HOLD_REASONS[ConflictKind.IDENTITY]
    mark_stale(session, study.id, study.held)


def identity_of(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """What `same_identity` looks at, as it was received."""
    return tuple(attributes.get(keyword, "") for keyword in _IDENTITY)


def same_identity(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two headers can be of one patient: what both state, agrees. Case, padding, last ^ mean nothing (PS3.5 6.2)."""
    for keyword in _IDENTITY:
        first, second = _comparable(one, keyword), _comparable(other, keyword)
        if first and second and first != second:
            return False
    return True


def _comparable(attributes: Mapping[str, str], keyword: str) -> str:
    text = header_text(attributes, keyword).upper()
    # A name's ideographic and phonetic groups come and go between systems; the first group is compared.
    return text.split("=")[0].rstrip("^ ") if keyword == "PatientName" else text


def record(session: Session, received: Received, kind: str, now: datetime) -> None:
    """Keep the conflict and hold series or study. UsageError if nothing is stored under this UID."""
    row = session.execute(
        select(Series.id, Series.study_id, Series.state)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.sop_instance_uid == received.sop_instance_uid)
    ).one_or_none()
    if row is None:
        raise UsageError("nothing is stored under the UID of this conflict", "store the instance instead")
    met_before = select(Conflict.id).where(
        Conflict.sop_instance_uid == received.sop_instance_uid, Conflict.sha256 == received.sha256
    )
    if session.scalar(met_before.limit(1)) is not None:
        return  # a sender that sends it again says nothing new; what an operator decided stands
    conflict = ConflictKind(kind)
    _keep_conflict(session, row.study_id, row.id, received, conflict, path=received.path.as_posix())
    if conflict in STUDY_CONFLICTS:
        keep_header_version(session, row.study_id, received.attributes, now)
        session.execute(update(Study).where(Study.id == row.study_id).values(held=HOLD_REASONS[conflict]))
        mark_stale(session, row.study_id, HOLD_REASONS[conflict])
    else:
        session.execute(update(Series).where(Series.id == row.id).values(held=HOLD_REASONS[conflict]))
        remarked(session, SERIES, row.id, row.state, "held", now=now, reason=HOLD_REASONS[conflict])


def _keep_conflict(
    session: Session, study_id: int, series_id: int, received: Received, kind: ConflictKind, *, path: str
) -> None:
    session.add(
        Conflict(
            study_id=study_id,
            series_id=series_id,
            kind=kind.value,
            sop_instance_uid=received.sop_instance_uid,
            path=path,
            sha256=received.sha256,
            size_bytes=received.size_bytes,
            transfer_syntax_uid=received.transfer_syntax_uid,
            attributes=dict(received.attributes),
            received_at=received.received_at,
        )
    )


def mark_stale(session: Session, study_id: int, why: str | None) -> None:
    """The results of this study say something else than what is known now; None: they do not."""
    of_study = select(Job.id).where(Job.study_id == study_id).scalar_subquery()
    session.execute(update(Result).where(Result.job_id.in_(of_study)).values(stale=why))


def newest_identity(session: Session, study_id: int) -> dict[str, str]:
    """Who the newest header of the study says that the patient is, as far as it says anything: keyword → text."""
    newest = select(HeaderVersion.attributes).where(HeaderVersion.study_id == study_id).order_by(HeaderVersion.version.desc())
    attributes = session.scalar(newest.limit(1)) or {}
    return {keyword: text for keyword in _TIES if (text := header_text(attributes, keyword))}
