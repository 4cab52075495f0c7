"""The lives of series, jobs and deliveries: (state, event) → state, one table a kind.

The database's CHECK constraints, the audit rows, the diagrams in the docs and the tests derive from these tables.
An unknown pair raises and changes nothing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class SeriesState(StrEnum):
    """Is more to come?"""

    ARRIVING = "arriving"
    COMPLETE = "complete"


class SeriesEvent(StrEnum):
    """What happens to a series."""

    COMPLETED = "completed"
    LATE_IMAGE = "late_image"


class JobState(StrEnum):
    """Where one run of one pipeline over one study's chosen series stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class JobEvent(StrEnum):
    """What happens to a job."""

    CLAIMED = "claimed"
    FINISHED = "finished"
    REFUSED = "refused"
    FAILED = "failed"  # permanent, or the last attempt
    TRY_AGAIN = "try_again"  # transient failure, with backoff
    LEASE_LOST = "lease_lost"
    WORKER_DIED = "worker_died"  # by signal, memory or hard timeout, while its supervisor lived: a crash that counts
    NODE_RESTARTED = "node_restarted"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # late image or reprocessing: a new version takes over
    OPERATOR_RETRY = "operator_retry"


class DeliveryState(StrEnum):
    """Where one result instance on its way to one destination stands."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    HELD = "held"
    CANCELLED = "cancelled"


class DeliveryEvent(StrEnum):
    """What happens to a delivery."""

    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    TRY_AGAIN = "try_again"
    LEASE_LOST = "lease_lost"
    PROVED = "proved"
    PROOF_SAYS_MISSING = "proof_says_missing"
    REJECTED = "rejected"
    HELD = "held"
    CANCELLED = "cancelled"
    OPERATOR_RETRY = "operator_retry"
    SEG_RETRIED = "seg_retried"  # cancelled because the SEG that it names was refused, which is now sent again


SERIES_TRANSITIONS: Mapping[tuple[SeriesState, SeriesEvent], SeriesState] = {
    (SeriesState.ARRIVING, SeriesEvent.COMPLETED): SeriesState.COMPLETE,
    (SeriesState.COMPLETE, SeriesEvent.LATE_IMAGE): SeriesState.ARRIVING,
}

JOB_TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIMED): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.FINISHED): JobState.DONE,
    (JobState.RUNNING, JobEvent.REFUSED): JobState.REFUSED,
    (JobState.RUNNING, JobEvent.FAILED): JobState.FAILED,
    (JobState.RUNNING, JobEvent.TRY_AGAIN): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.LEASE_LOST): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.WORKER_DIED): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.NODE_RESTARTED): JobState.QUEUED,
    (JobState.QUEUED, JobEvent.CANCELLED): JobState.CANCELLED,
    (JobState.RUNNING, JobEvent.CANCELLED): JobState.CANCELLED,
    (JobState.QUEUED, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.RUNNING, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.DONE, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.REFUSED, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.FAILED, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.CANCELLED, JobEvent.SUPERSEDED): JobState.SUPERSEDED,
    (JobState.FAILED, JobEvent.OPERATOR_RETRY): JobState.QUEUED,
    (JobState.REFUSED, JobEvent.OPERATOR_RETRY): JobState.QUEUED,
    (JobState.CANCELLED, JobEvent.OPERATOR_RETRY): JobState.QUEUED,
}

DELIVERY_TRANSITIONS: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.WAITING, DeliveryEvent.CLAIMED): DeliveryState.SENDING,
    (DeliveryState.WAITING, DeliveryEvent.HELD): DeliveryState.HELD,
    (DeliveryState.WAITING, DeliveryEvent.CANCELLED): DeliveryState.CANCELLED,
    (DeliveryState.SENDING, DeliveryEvent.ACCEPTED): DeliveryState.SENT,
    (DeliveryState.SENDING, DeliveryEvent.TRY_AGAIN): DeliveryState.WAITING,
    (DeliveryState.SENDING, DeliveryEvent.LEASE_LOST): DeliveryState.WAITING,
    (DeliveryState.SENDING, DeliveryEvent.REJECTED): DeliveryState.REJECTED,
    (DeliveryState.SENDING, DeliveryEvent.HELD): DeliveryState.HELD,
    (DeliveryState.SENT, DeliveryEvent.PROVED): DeliveryState.CONFIRMED,
    (DeliveryState.SENT, DeliveryEvent.PROOF_SAYS_MISSING): DeliveryState.WAITING,
    (DeliveryState.HELD, DeliveryEvent.OPERATOR_RETRY): DeliveryState.WAITING,
    (DeliveryState.HELD, DeliveryEvent.CANCELLED): DeliveryState.CANCELLED,
    (DeliveryState.REJECTED, DeliveryEvent.OPERATOR_RETRY): DeliveryState.WAITING,
    (DeliveryState.REJECTED, DeliveryEvent.CANCELLED): DeliveryState.CANCELLED,
    (DeliveryState.CANCELLED, DeliveryEvent.SEG_RETRIED): DeliveryState.WAITING,
}

_State = TypeVar("_State", bound=StrEnum)
_Event = TypeVar("_Event", bound=StrEnum)


class ImpossibleTransition(ValueError):
    """This event cannot happen in this state."""


def next_state(table: Mapping[tuple[_State, _Event], _State], state: _State, event: _Event) -> _State:
    """The state after `event`. Raises ImpossibleTransition for a pair that the table does not hold."""
    try:
        return table[(state, event)]
    except KeyError:
        raise ImpossibleTransition(f"{type(state).__name__} {state.value!r} knows no event {event.value!r}") from None


def diagram(table: Mapping[tuple[_State, _Event], _State]) -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = [f"    {state.value} --> {after.value}: {event.value}" for (state, event), after in table.items()]
    return "\n".join(["stateDiagram-v2", *lines])
