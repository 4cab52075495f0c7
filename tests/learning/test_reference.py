"""Reference lungs follow their rule, and leave out what the rule would take for lung."""

import numpy as np

from dicomnode.learning.reference import reference_lungs, windpipe


def box(shape: tuple[int, int, int] = (40, 80, 80)) -> np.ndarray:
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[:, 5:75, 5:75] = 40
    return hu


def test_large_inner_air_is_lung_and_air_at_the_border_and_small_air_is_not() -> None:
    hu = box()
    hu[5:35, 20:60, 12:34] = -850  # 26,400 voxels
    hu[5:35, 20:60, 50:60] = -850  # 12,000 voxels: too few
    lungs = reference_lungs(hu)
    assert lungs[20, 40, 20]
    assert not lungs[20, 40, 55]
    assert not lungs[20, 2, 40]


def test_a_vessel_thinner_than_the_closing_belongs_to_the_lung_and_a_mass_does_not() -> None:
    hu = box()
    hu[5:35, 15:65, 10:60] = -850
    hu[:, 30:33, 20:23] = 40
    hu[15:30, 40:60, 30:50] = 40
    lungs = reference_lungs(hu)
    assert lungs[20, 31, 21]
    assert not lungs[22, 50, 40]


def test_a_hollow_table_is_no_lung_where_the_body_is_known() -> None:
    hu = np.full((40, 120, 80), -1000, dtype=np.int16)
    hu[:, 5:60, 5:75] = 40
    hu[:, 80:115, 5:75] = 100
    hu[:, 85:110, 10:70] = -950  # inside the table
    body = np.zeros(hu.shape, dtype=bool)
    body[:, 5:60, 5:75] = True
    assert reference_lungs(hu)[20, 95, 40]
    assert not reference_lungs(hu, body).any()


def test_the_windpipe_is_followed_from_the_top_to_where_it_divides() -> None:
    hu = box((40, 80, 80))
    lungs = np.zeros(hu.shape, dtype=bool)
    hu[15:, 36:46, 36:46] = -950
    lungs[15:, 36:46, 36:46] = True
    hu[5:30, 20:60, 8:30] = -850
    lungs[5:30, 20:60, 8:30] = True
    found = windpipe(hu, lungs, (2.0, 1.5, 1.5))
    assert found[20, 40, 40]
    assert not found[20, 40, 20]
    assert not found[10].any()
