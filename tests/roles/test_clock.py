"""The machine's clock is set while the sweeps run on it."""

from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from dicomnode.domain.errors import DatabaseUnreachable
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


def test_while_the_database_is_away_a_sweep_says_so_once_and_any_other_failure_each_time() -> None:
    runs: list[int] = []

    def task() -> None:
        runs.append(len(runs))
        if len(runs) in (1, 2, 3, 5, 6):
            raise DatabaseUnreachable("the database does not answer", "start its server")
        if len(runs) in (7, 8):
            raise ValueError("a defect")

    with capture_logs() as logs:
        scheduler = schedule({"task": (task, 0.05)})
        scheduler.start()
        try:
            wait_until(lambda: len(runs) > 9, what="ten runs")
        finally:
            scheduler.shutdown()
    said = [type(line["exc_info"]) for line in logs if line["event"] == "sweep missed or failed" and line["exc_info"]]
    assert said == [DatabaseUnreachable, DatabaseUnreachable, ValueError, ValueError]
