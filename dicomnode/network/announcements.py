"""Data sets of MPPS (PS3.4 F.7.2) and Instance Availability Notification (PS3.4 R.3.2) as values. No I/O."""

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep

from dicomnode.domain.announcements import (
    Announcement,
    AnnouncementKind,
    AnnouncementStatus,
    StepChange,
    type_references,
)
from dicomnode.domain.errors import InvalidInstance

STEP_SOP_CLASS = str(ModalityPerformedProcedureStep)
AVAILABILITY_SOP_CLASS = str(InstanceAvailabilityNotification)

# PS3.7 C.5
INVALID_ATTRIBUTE_VALUE = 0x0106
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_SOP_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
RESOURCE_LIMITATION = 0x0213

# Far more than a study of today has; what is kept of a message is bounded by it.
MOST_REFERENCES = 100_000
_LONGEST_UID = 64  # PS3.5 9.1
_MOST_STUDIES = 16
_UNAVAILABLE = "UNAVAILABLE"  # Instance Availability (0008,0056), PS3.3 C.4.23.1.1


def read_new_step(sop_instance_uid: str, said: Dataset) -> Announcement:
    """An N-CREATE of MPPS. Raises InvalidInstance with the status of its answer."""
    if _status(said) is not AnnouncementStatus.IN_PROGRESS:
        raise _invalid(INVALID_ATTRIBUTE_VALUE, "a procedure step does not begin as IN PROGRESS")
    steps = said.get("ScheduledStepAttributesSequence")
    if steps is None:
        raise _invalid(MISSING_ATTRIBUTE, "a procedure step names no scheduled step")
    studies = tuple(dict.fromkeys(_uid(step, "StudyInstanceUID") for step in steps))
    if not studies:
        raise _invalid(MISSING_ATTRIBUTE_VALUE, "a procedure step names no scheduled step")
    if len(studies) > _MOST_STUDIES:
        raise _invalid(RESOURCE_LIMITATION, "a procedure step names too many studies")
    step = AnnouncementKind.STEP
    return Announcement(step, _instance(sop_instance_uid), studies, AnnouncementStatus.IN_PROGRESS, _performed(said) or {})


def read_step_change(sop_instance_uid: str, said: Dataset) -> StepChange:
    """An N-SET of MPPS; what it leaves out stays as it is. Raises InvalidInstance with the status of its answer."""
    status = _status(said) if "PerformedProcedureStepStatus" in said else None
    reasons = said.get("PerformedProcedureStepDiscontinuationReasonCodeSequence") or ()
    reason = next((str(one.get("CodeMeaning", "") or "") for one in reasons), "")
    return StepChange(_instance(sop_instance_uid), status, _performed(said), reason[:64])


def read_availability(sop_instance_uid: str, said: Dataset) -> Announcement:
    """An N-CREATE of IAN. What it calls unavailable is not announced. Raises InvalidInstance with the status of its answer."""
    study = _uid(said, "StudyInstanceUID")
    named = [
        (_uid(series, "SeriesInstanceUID"), item)
        for series in said.get("ReferencedSeriesSequence") or ()
        for item in series.get("ReferencedSOPSequence") or ()
        if str(item.get("InstanceAvailability", "")).strip() != _UNAVAILABLE
    ]
    available, status = AnnouncementKind.AVAILABILITY, AnnouncementStatus.AVAILABLE
    return Announcement(available, _instance(sop_instance_uid), (study,), status, _references(named))


def _performed(said: Dataset) -> type_references | None:
    """The series that a step has made so far: each message names all of them anew (PS3.4 F.7.2.2.2)."""
    performed = said.get("PerformedSeriesSequence")
    if performed is None:
        return None
    named = []
    for series in performed:
        series_uid = _uid(series, "SeriesInstanceUID")
        for keyword in ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):
            named += [(series_uid, item) for item in series.get(keyword) or ()]
    return _references(named)


def _references(named: Iterable[tuple[str, Dataset]]) -> type_references:
    found: dict[str, dict[str, dict[str, None]]] = {}
    for count, (series_uid, item) in enumerate(named):
        if count >= MOST_REFERENCES:
            raise _invalid(RESOURCE_LIMITATION, "an announcement names too many instances")
        sop_class, instance = _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
        found.setdefault(series_uid, {}).setdefault(sop_class, {})[instance] = None
    return {series: {kind: tuple(uids) for kind, uids in kinds.items()} for series, kinds in found.items()}


def _status(said: Dataset) -> AnnouncementStatus:
    text = said.get("PerformedProcedureStepStatus")
    if text is None:
        raise _invalid(MISSING_ATTRIBUTE, "a procedure step has no status")
    status = next((one for one in AnnouncementStatus if one.value == str(text).strip()), None)
    if status is None or status is AnnouncementStatus.AVAILABLE:
        raise _invalid(INVALID_ATTRIBUTE_VALUE, "a procedure step has a status that PS3.3 does not know")
    return status


def _uid(item: Dataset, keyword: str) -> str:
    if keyword not in item:
        raise _invalid(MISSING_ATTRIBUTE, f"an announcement lacks {keyword}")
    return _checked(str(item.get(keyword) or ""), MISSING_ATTRIBUTE_VALUE, f"an announcement has no value of {keyword}")


def _instance(uid: str) -> str:
    return _checked(uid, INVALID_SOP_INSTANCE, "an announcement has no usable SOP Instance UID")


def _checked(uid: str, status: int, what: str) -> str:
    if not uid or len(uid) > _LONGEST_UID or not set(uid) <= set("0123456789."):
        raise _invalid(status, what)
    return uid


def _invalid(status: int, what: str) -> InvalidInstance:
    return InvalidInstance(what, "repair the sender", status)
