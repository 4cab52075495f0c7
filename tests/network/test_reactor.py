"""The stop line: "stopped" is said only of a thread that rests, never of one that is on its way past."""

import threading
import time

from dicomnode.network.reactor import StopLine


def test_a_thread_that_was_let_go_does_not_count_as_stopped_until_it_rests_again() -> None:
    line, passed, end = StopLine(), [0], threading.Event()
    gate = threading.Event()
    gate.set()

    def reactor() -> None:
        while not end.is_set():
            line.wait()
            gate.wait()  # preempted here: past the line, not yet at its work
            passed[0] += 1

    line.clear()
    thread = threading.Thread(target=reactor, daemon=True)
    thread.start()
    deadline = time.monotonic() + 5
    while not line.stopped and time.monotonic() < deadline:
        time.sleep(0.0001)
    assert line.stopped
    gate.clear()
    line.set()
    line.clear()
    assert not line.stopped  # it may still be under way
    time.sleep(0.02)
    assert not line.stopped or passed[0] == 0
    gate.set()
    while not line.stopped and time.monotonic() < deadline:
        time.sleep(0.0001)
    assert line.stopped
    before = passed[0]
    time.sleep(0.02)
    assert passed[0] == before  # at rest
    end.set()
    line.set()
    thread.join(5)
    assert not thread.is_alive()
