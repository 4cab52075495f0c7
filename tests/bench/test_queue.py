"""`bench queue` has several processes claim every job once, and says how long it took."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.bench.queue import QueuePlan, queue
from dicomnode.domain.errors import UsageError

EXECUTABLE = Path(sys.executable).with_name("dicomnode")


def test_a_small_bench_says_median_p99_and_rate_of_claims_and_whether_the_goal_is_met(tmp_path: Path) -> None:
    done = subprocess.run(
        [EXECUTABLE, "bench", "queue", "--json", "--rounds", "1", "--jobs", "12", "--processes", "2", "--no-looks",
         "--database", "sqlite", "--dir", tmp_path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["schema"] == "dicomnode.bench.queue/1"
    measured = {row["unit"]: row["median"] for row in document["rows"] if (row["case"], row["subject"]) == ("claims", "sqlite")}
    assert 0 < measured["ms, median"] <= measured["ms, p99"] <= measured["ms, worst"]
    assert measured["jobs/s"] > 0
    (goal,) = document["goals"]
    assert (goal["measured"], goal["met"]) == (pytest.approx(measured["ms, p99"], abs=0.001), measured["ms, p99"] <= 300)
    assert not list(tmp_path.iterdir())


def test_an_unknown_database_is_a_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no database"):
        queue(QueuePlan(tmp_path, databases=("oracle",)), lambda *_: None)
