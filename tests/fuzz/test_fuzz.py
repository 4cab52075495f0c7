"""A bounded share of `make fuzz`; what it runs is the same code, with the same cases as its first."""

import warnings
from pathlib import Path

import pytest

from tests.fuzz import live
from tests.fuzz.driver import run
from tests.fuzz.targets import targets

CASES = {"pdu": 12_000, "header": 10_000, "command": 12_000, "request": 4_000}
TARGETS = targets()


@pytest.mark.parametrize("name", list(CASES))
def test_mutated_bytes_end_as_the_reader_declares_and_never_otherwise(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = run(name, TARGETS[name], range(CASES[name]), 11, tmp_path)
    assert not outcome.failures, outcome.failures[0]
    assert outcome.cases == CASES[name]
    assert outcome.grown_mb < 50
    good = {"pdu": "ended", "header": "read", "command": "read", "request": "agreed"}[name]
    assert outcome.ends[good] > CASES[name] // 20, "the valid way is no longer exercised"
    assert len(outcome.ends) > 1, "nothing was refused: mutations do not reach the reader"


def test_the_same_case_is_the_same_bytes_in_every_run() -> None:
    again = targets()
    for name, target in TARGETS.items():
        assert [target.case(11, number)[0] for number in range(50)] == [again[name].case(11, number)[0] for number in range(50)]


def test_a_reader_that_breaks_is_found_and_its_input_saved(tmp_path: Path) -> None:
    """The driver itself can fail: a reader with a planted bug is caught."""
    from dataclasses import replace

    def broken(data: bytes, *_: object) -> str:
        return str(data.index(b"\x00\x08") if len(data) % 7 == 3 else 0)

    outcome = run("planted", replace(TARGETS["command"], run=broken), range(500), 11, tmp_path)
    assert outcome.failures
    assert len(list(tmp_path.glob("planted-11-*.bin"))) == len(outcome.failures)


def test_mutated_sessions_leave_a_real_node_serving(tmp_path: Path) -> None:
    outcome = live.run(tmp_path / "node", 150, 11, tmp_path)
    assert not outcome.failures, outcome.failures
    assert outcome.cases == 150
