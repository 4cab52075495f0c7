"""When to try again and when to give up: functions of values, no clock and no socket."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random

from dicomnode.domain.states import DeliveryEvent
from dicomnode.domain.statuses import Outcome


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How patient delivery is. Times in seconds where the name says so."""

    first_pause_s: float = 5.0
    longest_pause_s: float = 900.0
    # Long enough for a PACS that is down over the holidays; then an operator must look.
    hold_after: timedelta = timedelta(days=14)
    # 0110, Cxxx and unlisted statuses often pass (a full index, a locked patient), but not after this long.
    doubt_for: timedelta = timedelta(hours=6)
    # An archive may index later than it answers. Missing for this long after sending: sent once more.
    missing_after_s: float = 600.0
    first_proof_pause_s: float = 1.0
    longest_proof_pause_s: float = 3600.0
    # How long an archive's report of a storage commitment is waited for, at once and at all, before it is asked again.
    report_wait_s: float = 2.0
    commitment_patience_s: float = 300.0
    # A sender that died alone keeps its object from others for this long; a restart of the node takes all claims back at once.
    lease_s: float = 900.0
    poll_s: float = 1.0

    @property
    def longest_send_s(self) -> float:
        """When one object's sending is given up: before its claim ends, so that nobody else sends it at the same time."""
        return 0.9 * self.lease_s


def backoff(attempt: int, rng: Random, *, first_s: float = 5.0, longest_s: float = 900.0) -> float:
    """Seconds to wait after failed attempt number `attempt` (1-based): doubling from `first_s` to `longest_s`.

    The upper half of each pause is random, so that the objects that failed together do not come back together.
    """
    doublings = min(max(attempt, 1) - 1, 40)  # 2**40 pauses are longer than any limit, and no float overflows
    pause = min(longest_s, first_s * float(2**doublings))
    return pause * rng.uniform(0.5, 1.0)


def decide(outcome: Outcome, *, age: timedelta, doubted_for: timedelta, policy: DeliveryPolicy) -> DeliveryEvent:
    """What becomes of a delivery after one attempt.

    age: since it began to wait. doubted_for: since the destination first answered with a doubtful status.
    """
    if outcome in (Outcome.ACCEPTED, Outcome.ACCEPTED_WITH_WARNING):
        return DeliveryEvent.ACCEPTED
    if outcome is Outcome.REJECTED or (outcome is Outcome.DOUBTFUL and doubted_for >= policy.doubt_for):
        return DeliveryEvent.REJECTED
    if age >= policy.hold_after:
        return DeliveryEvent.HELD
    return DeliveryEvent.TRY_AGAIN


def proof_is_overdue(since_sent: timedelta, attempt: int, policy: DeliveryPolicy) -> bool:
    """Whether an archive that does not show an accepted object has had its time; more of it after each resend.

    Without the growth an archive that answers C-FIND wrongly would get everything again every ten minutes for ever.
    """
    patience_s = policy.missing_after_s * float(2 ** min(attempt - 1, 10))
    return since_sent.total_seconds() >= patience_s
