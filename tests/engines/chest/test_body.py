"""The patient without table, arms and air."""

import numpy as np

from dicomnode.engines.chest.body import body_mask
from dicomnode.phantom import ThoraxSpec, thorax

SPACING_MM = (5.0, 2.0, 2.0)


def _disc(shape: tuple[int, int, int], center: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    _, y, x = np.indices(shape)
    return ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 <= 1


def _patient(noise: float = 15.0) -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs on a table top, an arm on each side; HU and the true body."""
    shape = (12, 180, 180)
    hu = np.full(shape, -1000.0)
    body = _disc(shape, (85, 90), (45, 62))
    hu[body] = 40
    for middle in (68, 112):
        hu[_disc(shape, (85, middle), (30, 15))] = -850
    for middle in (15, 165):
        hu[_disc(shape, (90, middle), (12, 9))] = 50
    table = _disc(shape, (60, 90), (85, 80)) & ~_disc(shape, (58, 90), (83, 78)) & (np.indices(shape)[1] > 120)
    hu[table] = 200
    hu[:, 150:153, 20:160] = 100
    hu += np.random.default_rng(1).normal(0, noise, shape)
    return hu.astype(np.int16), body


def test_table_and_arms_are_left_out_and_lungs_are_kept() -> None:
    hu, body = _patient()
    mask = body_mask(hu, SPACING_MM)
    assert (mask & body).sum() >= 0.999 * body.sum()
    assert (mask & ~body).sum() <= 0.1 * body.sum()
    assert not mask[:, 150:].any()
    assert not mask[:, :, :22].any()


def test_the_value_outside_does_not_matter() -> None:
    hu, _ = _patient()
    padded = hu.copy()
    y, x = np.indices(hu.shape[1:])
    padded[:, (y - 90) ** 2 + (x - 90) ** 2 > 88**2] = -3024
    assert (body_mask(padded, SPACING_MM) != body_mask(hu, SPACING_MM)).mean() < 0.002


def test_lung_that_a_small_field_of_view_cuts_open_stays_body() -> None:
    hu, _ = _patient()
    cut = hu[:, 40:130, 60:120]  # through both lungs
    assert body_mask(cut, SPACING_MM)[:, 30:60].mean() > 0.99


def test_empty_air_has_no_body() -> None:
    assert not body_mask(np.full((4, 40, 40), -1000, dtype=np.int16), SPACING_MM).any()


def test_a_phantom_on_its_table_keeps_its_lungs_and_loses_the_table() -> None:
    phantom = thorax(ThoraxSpec(seed=4, slices=24, size=128, slice_spacing_mm=9.0, pixel_spacing_mm=3.6, table=True))
    mask = body_mask(phantom.hu, phantom.spacing_mm)
    lungs = (phantom.labels == 1) | (phantom.labels == 2)
    assert mask[lungs].mean() > 0.999
    assert not mask[:, -4:].any()
