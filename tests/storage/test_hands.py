"""Side threads: in order, told failures, used only where the hand-over is cheaper than the wait."""

import os
import threading
from functools import partial

import pytest

from dicomnode.storage.hands import Hand, Hands
from tests.peers.waiting import wait_until


def test_what_was_begun_is_done_in_that_order_and_waited_for() -> None:
    done: list[int] = []
    hand = Hand()
    for number in range(5):
        hand.begin(partial(done.append, number))
    hand.wait()
    assert done == [0, 1, 2, 3, 4]
    hand.end()


def test_who_waits_is_told_what_failed_and_the_hand_goes_on() -> None:
    hand, done = Hand(), []

    def fails() -> None:
        raise OSError("the disk")

    hand.begin(fails)
    hand.begin(lambda: done.append(1))
    with pytest.raises(OSError, match="the disk"):
        hand.wait()
    hand.begin(lambda: done.append(2))
    hand.wait()
    assert done == [1, 2]
    hand.end()


def test_threads_end_with_their_owner() -> None:
    before = threading.active_count()
    hands = Hands()
    taken = [hands.take() for _ in range(3)]
    for hand in taken:
        hands.give_back(hand)
    assert hands.take() is taken[-1]
    hands.give_back(taken[-1])
    assert threading.active_count() == before + 3
    del hands
    wait_until(lambda: threading.active_count() <= before, timeout_s=10, what="the threads to end")


def test_a_lone_sender_gets_a_side_thread_and_many_only_on_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    hands, now = Hands(), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def disk(seconds: float) -> None:
        def sync(_: int) -> None:
            now[0] += seconds

        monkeypatch.setattr(os, "fdatasync", sync)
        for _ in range(100):
            hands.sync(-1)

    def for_each_of(senders: int) -> list[bool]:
        answers = [hands.finishing() for _ in range(senders)]
        for _ in range(senders):
            hands.finished()
        return answers

    disk(0.0003)
    assert for_each_of(1) == [True]
    assert for_each_of(16)[-1] is False
    disk(0.003)
    assert all(for_each_of(16))
    disk(0.0)
    assert for_each_of(1) == [False]
