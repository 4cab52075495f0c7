"""Which precision is chosen, and that a busy machine does not choose it."""

from collections.abc import Callable
from itertools import cycle

import pytest

from dicomnode.engines.devices import clearly_faster


def clock(fp32: list[float], bf16: list[float]) -> Callable[[bool], float]:
    """Windows' seconds in the order in which they are timed."""
    timings = {False: cycle(fp32), True: cycle(bf16)}
    return lambda low_precision: next(timings[low_precision])


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [
        ([0.05], [0.02], True),
        ([0.05], [0.048], False),
        ([0.05], [0.1], False),
        ([0.05, 0.06, 0.05], [0.4, 0.02, 0.3], True),
        ([0.4, 0.05, 0.3], [0.1, 0.1, 0.1], False),
    ],
)
def test_the_quickest_window_of_each_precision_decides_not_one_that_other_work_slowed(
    fp32: list[float], bf16: list[float], chosen: bool
) -> None:
    assert clearly_faster(clock(fp32, bf16)) is chosen


def test_a_slow_model_is_timed_only_until_seconds_are_spent() -> None:
    taken: list[bool] = []

    def slow(low_precision: bool) -> float:
        taken.append(low_precision)
        return 3.0 if low_precision else 6.0

    assert clearly_faster(slow)
    assert taken == [False, True]
