"""One breaker a destination: who does not answer is left alone for a while, and nobody else waits for him."""

from collections.abc import Callable
from random import Random

from dicomnode.delivery.policy import DeliveryPolicy, backoff


class Breaker:
    """Closed: send. Open: the destination was out of reach; wait. When the pause is over one try shows how it is.

    Only failures to reach the destination count. What happens to a single object (a status, a link that breaks while it is
    being sent) is that object's own matter: one poisoned object must not hold up the rest.
    """

    def __init__(self, policy: DeliveryPolicy, rng: Random, monotonic: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng
        self._monotonic = monotonic
        self._failures = 0
        self._closed_from = 0.0

    @property
    def failures(self) -> int:
        """How often in a row the destination was out of reach."""
        return self._failures

    def allows(self) -> bool:
        """Whether to try now."""
        return self._failures == 0 or self._monotonic() >= self._closed_from

    def remaining_s(self) -> float:
        """Seconds until the next try; 0 when one is allowed."""
        return 0.0 if self._failures == 0 else max(0.0, self._closed_from - self._monotonic())

    def reached(self) -> None:
        """The destination answered."""
        self._failures = 0

    def missed(self) -> float:
        """The destination was out of reach; returns the seconds until the next try."""
        self._failures += 1
        pause = backoff(
            self._failures, self._rng, first_s=self._policy.first_pause_s, longest_s=self._policy.longest_pause_s
        )  # fmt: skip
        self._closed_from = self._monotonic() + pause
        return pause
