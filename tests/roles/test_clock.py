"""The machine's clock is set while the sweeps run on it."""

from datetime import UTC, datetime, timedelta

from dicomnode.roles.sweep import ClockJumps, schedule
from tests.peers.waiting import wait_until

HOUR = 3600.0


def test_a_scheduler_whose_clock_was_set_back_goes_on_at_once() -> None:
    runs: list[datetime] = []
    wall = [1000.0]
    scheduler = schedule({"task": (lambda: runs.append(datetime.now(UTC)), HOUR)})
    scheduler.start()
    try:
        wait_until(lambda: len(runs) == 1, what="the first run")
        # As after a clock that was set back by a day: what is due next lies far ahead.
        scheduler.get_job("task").modify(next_run_time=datetime.now(UTC) + timedelta(days=1))
        jumps = ClockJumps(scheduler, wall=lambda: wall[0], monotonic=lambda: 0.0)
        jumps.look()
        assert len(runs) == 1
        wall[0] -= 86_400
        jumps.look()
        wait_until(lambda: len(runs) == 2, what="the run after the jump")
    finally:
        scheduler.shutdown()
