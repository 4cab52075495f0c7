"""When to try again, when to give up, whom to leave alone: pure functions and a breaker with a clock in hand."""

from datetime import timedelta
from random import Random

import pytest

from dicomnode.delivery import Breaker, DeliveryPolicy, backoff, decide
from dicomnode.delivery.policy import proof_is_overdue
from dicomnode.domain.states import DeliveryEvent
from dicomnode.domain.statuses import Outcome, outcome_of_store, store_status_in_words

POLICY = DeliveryPolicy()
FRESH = timedelta(minutes=1)
HOURS = timedelta(hours=7)
WEEKS = timedelta(days=14)


def test_pauses_double_from_five_seconds_to_a_quarter_of_an_hour_with_half_of_each_left_to_chance() -> None:
    rng = Random(1)  # noqa: S311
    for attempt, full in enumerate([5, 10, 20, 40, 80, 160, 320, 640, 900, 900], start=1):
        pauses = [backoff(attempt, rng) for _ in range(200)]
        assert full / 2 <= min(pauses) < 0.6 * full
        assert 0.9 * full < max(pauses) <= full
    assert backoff(100_000, rng) <= 900


# issue 14 item 4, PS3.4 B.2.3, PS3.7 C: status → while fresh, after hours of doubt, after 14 days
STATUSES = [
    (0x0000, "accepted", "accepted", "accepted"),
    (0xB000, "accepted", "accepted", "accepted"),
    (0xB006, "accepted", "accepted", "accepted"),
    (0xB007, "accepted", "accepted", "accepted"),
    (0x0111, "accepted", "accepted", "accepted"),
    (0xA700, "try_again", "try_again", "held"),
    (0xA7FF, "try_again", "try_again", "held"),
    (None, "try_again", "try_again", "held"),
    (0x0110, "try_again", "rejected", "rejected"),
    (0xC000, "try_again", "rejected", "rejected"),
    (0xCFFF, "try_again", "rejected", "rejected"),
    (0x0106, "try_again", "rejected", "rejected"),
    (0xFE00, "try_again", "rejected", "rejected"),
    (0xB001, "try_again", "rejected", "rejected"),
    (0x0122, "rejected", "rejected", "rejected"),
    (0x0124, "rejected", "rejected", "rejected"),
    (0xA900, "rejected", "rejected", "rejected"),
    (0xA9FF, "rejected", "rejected", "rejected"),
]


@pytest.mark.parametrize(("status", "fresh", "doubted", "old"), STATUSES)
def test_each_status_of_a_c_store_has_its_consequence(status: int | None, fresh: str, doubted: str, old: str) -> None:
    outcome = outcome_of_store(status)
    assert decide(outcome, age=FRESH, doubted_for=timedelta(), policy=POLICY) == DeliveryEvent(fresh)
    assert decide(outcome, age=HOURS, doubted_for=HOURS, policy=POLICY) == DeliveryEvent(doubted)
    assert decide(outcome, age=WEEKS, doubted_for=HOURS, policy=POLICY) == DeliveryEvent(old)


def test_a_doubtful_status_after_weeks_of_a_dead_archive_is_held_for_the_operator_not_rejected_at_once() -> None:
    assert decide(Outcome.DOUBTFUL, age=WEEKS, doubted_for=timedelta(), policy=POLICY) is DeliveryEvent.HELD


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA701, "A701 (out of resources)"),
        (0xC123, "C123 (cannot understand)"),
        (0xB000, "B000 (coercion of data elements)"),
        (0x0124, "0124 (not authorized)"),
        (0x4242, "4242 (not listed in PS3.4 B.2.3)"),
        (None, "no status (the link was lost; whether the object arrived is unknown)"),
    ],
)
def test_a_status_is_told_in_words(status: int | None, words: str) -> None:
    assert store_status_in_words(status) == words


def test_an_accepted_object_that_does_not_show_up_is_sent_again_after_a_patience_that_grows() -> None:
    assert not proof_is_overdue(timedelta(minutes=9), 1, POLICY)
    assert proof_is_overdue(timedelta(minutes=10), 1, POLICY)
    assert not proof_is_overdue(timedelta(minutes=19), 2, POLICY)
    assert proof_is_overdue(timedelta(minutes=20), 2, POLICY)
    assert not proof_is_overdue(timedelta(days=7), 1_000_000, POLICY)


def test_the_breaker_leaves_a_dead_destination_alone_for_growing_pauses_and_closes_when_it_answers() -> None:
    now = [1000.0]
    breaker = Breaker(POLICY, Random(2), lambda: now[0])  # noqa: S311
    assert breaker.allows()

    pauses = []
    for _ in range(10):
        pauses.append(breaker.missed())
        assert not breaker.allows()
        assert breaker.remaining_s() == pytest.approx(pauses[-1])
        now[0] += pauses[-1]
        assert breaker.allows()
    assert pauses[0] <= 5
    assert 450 <= pauses[-1] <= 900

    breaker.reached()
    assert breaker.allows()
    assert breaker.failures == 0
    assert breaker.missed() <= 5
