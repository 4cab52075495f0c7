"""`bench results` measures every kind in a process of its own and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.bench.results import ResultsPlan, results
from dicomnode.bench.results_case import CASES, DEFAULT
from dicomnode.domain.errors import UsageError

EXECUTABLE = Path(sys.executable).with_name("dicomnode")


def test_a_small_bench_says_seconds_and_memory_of_the_default_set_and_that_the_goals_are_for_another_size(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [EXECUTABLE, "bench", "results", "--json", "--rounds", "1", "--slices", "16", "--size", "64", "--dir", tmp_path,
         "--case", DEFAULT, "--case", "parametric map"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["schema"] == "dicomnode.bench.results/1"
    measured = {(row["case"], row["unit"]): row["median"] for row in document["rows"]}
    assert measured[DEFAULT, "s"] > measured[f"{DEFAULT}, build", "s"] > 0
    assert measured[DEFAULT, "MB"] > 0
    assert measured["parametric map", "MB"] == pytest.approx(16 * 64 * 64 * 2 / 1e6, rel=0.5)
    assert not any(goal["applies"] for goal in document["goals"])
    assert not list(tmp_path.iterdir())


def test_every_kind_has_a_case() -> None:
    from dicomnode.domain.profiles import ResultKind, SegForm

    assert {kind for case in CASES for kind in case.profile.kinds} == set(ResultKind)
    assert {case.profile.seg_form for case in CASES} == set(SegForm)


def test_an_unknown_case_is_a_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no case"):
        results(ResultsPlan(tmp_path, cases=("nothing",)), lambda *_: None)
