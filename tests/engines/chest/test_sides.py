"""Left and right by where a lung lies in the patient."""

import numpy as np
import pytest

from dicomnode.engines.chest.sides import LEFT, RIGHT, Frame, split_lungs

SHAPE = (30, 60, 100)
SPACING_MM = (3.0, 3.0, 3.0)


def _ball(x: float, radii: tuple[float, float, float] = (12, 20, 17)) -> np.ndarray:
    z, y, xs = np.indices(SHAPE)
    return ((z - 15) / radii[0]) ** 2 + ((y - 30) / radii[1]) ** 2 + ((xs - x) / radii[2]) ** 2 <= 1


def _frame(shift_mm: float = 0.0) -> Frame:
    return Frame(SPACING_MM, (np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) * SPACING_MM[2] - shift_mm)


def test_two_lungs_apart_get_their_sides() -> None:
    right, left = _ball(25), _ball(75)
    sides = split_lungs(right | left, _frame())
    assert (sides[right] == RIGHT).all()
    assert (sides[left] == LEFT).all()
    assert (sides[~(right | left)] == 0).all()


@pytest.mark.parametrize("middle", [30, 70])
def test_one_lung_alone_keeps_its_side(middle: int) -> None:
    sides = split_lungs(_ball(middle), _frame())
    assert set(np.unique(sides)) == {0, RIGHT if middle < 50 else LEFT}


def test_lungs_that_touch_are_parted_where_they_are_thinnest() -> None:
    right, left = _ball(30), _ball(70)
    bridge = np.zeros(SHAPE, dtype=bool)
    bridge[14:17, 12:16, 30:70] = True
    sides = split_lungs(right | left | bridge, _frame())
    assert (sides[right] == RIGHT).mean() > 0.995
    assert (sides[left] == LEFT).mean() > 0.995
    assert set(np.unique(sides[bridge])) == {LEFT, RIGHT}


def test_two_lungs_are_told_apart_even_where_the_middle_of_the_body_is_wrong() -> None:
    right, left = _ball(25), _ball(75)
    sides = split_lungs(right | left, _frame(shift_mm=90))
    assert (sides[right] == RIGHT).all()
    assert (sides[left] == LEFT).all()


def test_small_islands_are_no_lung() -> None:
    island = np.zeros(SHAPE, dtype=bool)
    island[2:6, 2:6, 45:50] = True
    assert not split_lungs(island, _frame()).any()
    assert not split_lungs(_ball(25) | island, _frame())[island].any()
