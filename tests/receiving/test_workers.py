"""Threads that are used again."""

import threading

import pytest

from dicomnode.receiving.workers import Workers
from tests.peers.waiting import wait_until


def test_a_thread_and_its_buffer_are_used_again_and_end_when_there_is_nothing_to_do() -> None:
    workers, buffers, threads = Workers(4, idle_s=0.3), [], set()
    for _ in range(20):
        done = threading.Event()

        def task(buffer: bytearray, done: threading.Event = done) -> None:
            buffers.append(id(buffer))
            threads.add(threading.current_thread())
            done.set()

        workers.submit(task)
        assert done.wait(5)
        wait_until(lambda: workers._idle, timeout_s=5, every_s=0.001, what="the thread to be free")
    assert len(threads) == 1
    assert len(set(buffers)) == 1
    wait_until(lambda: not any(thread.is_alive() for thread in threads), timeout_s=5, what="the thread to end")
    assert workers._threads == 0


def test_a_task_goes_to_the_thread_that_waits_and_not_to_one_that_is_just_done() -> None:
    """Else the one that was woken for it would find nothing, and end: a new thread for every third association (measured)."""
    workers = Workers(2)
    for _ in range(50):
        go, busy = threading.Event(), threading.Event()
        ran: list[threading.Thread] = []
        waiting: list[threading.Thread] = []

        def hold(_: bytearray, go: threading.Event = go, busy: threading.Event = busy) -> None:
            busy.set()
            assert go.wait(5)

        workers.submit(hold)
        assert busy.wait(5)
        workers.submit(lambda _, waiting=waiting: waiting.append(threading.current_thread()))
        wait_until(lambda: workers._idle, timeout_s=5, every_s=0.0005, what="the other one to be free")
        go.set()  # the first is done just when the task comes
        workers.submit(lambda _, ran=ran: ran.append(threading.current_thread()))
        wait_until(lambda: len(workers._idle) == 2, timeout_s=5, every_s=0.0005, what="both to be free")
        assert len(ran) == 1
        assert workers._threads == 2


def test_what_finds_no_thread_waits_for_one() -> None:
    workers, go, ran = Workers(2), threading.Event(), []

    def task(_: bytearray) -> None:
        assert go.wait(10)
        ran.append(threading.current_thread())

    for _ in range(7):
        workers.submit(task)
    assert workers._threads == 2
    go.set()
    wait_until(lambda: len(ran) == 7, timeout_s=5, what="all tasks")
    assert len(set(ran)) == 2


def test_a_task_that_fails_costs_no_thread() -> None:
    workers, done = Workers(1), threading.Event()

    def fail(_: bytearray) -> None:
        raise ZeroDivisionError

    workers.submit(fail)
    workers.submit(lambda _: done.set())
    assert done.wait(5)


def test_no_thread_keeps_the_process() -> None:
    workers, seen = Workers(1), []
    workers.submit(lambda _: seen.append(threading.current_thread().daemon))
    wait_until(lambda: seen == [True], timeout_s=5, what="the task")


def test_where_no_thread_can_be_started_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers(1)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError):
        workers.submit(lambda _: None)
    monkeypatch.undo()
    done = threading.Event()
    workers.submit(lambda _: done.set())
    assert done.wait(5)
