"""A bundle's own preprocessing, network and postprocessing from memory, back on the source grid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.domain.findings import Findings
from dicomnode.engines import load_pipeline
from tests.engines.conftest import as_volume
from tests.engines.zoo import ct_segmentation, thresholds, write_bundle

SHAPE = (26, 44, 52)
ONE = '[[segments]]\nlabel = "Spleen"\nchannel = 1\n'


def oblique_affine(spacing_mm: tuple[float, float, float] = (3.0, 1.1, 0.9)) -> NDArray[np.float64]:
    """z, y, x → LPS, turned about two axes and off the origin."""
    a, b = np.deg2rad(17.0), np.deg2rad(-11.0)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    straight = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]]) * np.array(spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ straight
    affine[:3, 3] = (31.0, -12.0, 140.0)
    return affine


def points_mm(affine: NDArray[np.float64], shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float64]:
    """LPS of every voxel, (z, y, x, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.asarray(indices @ affine[:3, :3].T + affine[:3, 3])


def depth_mm(affine: NDArray[np.float64], shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float64]:
    """How deep each voxel lies in an asymmetric body: two spheres of different size, off the middle in every direction."""
    points = points_mm(affine, shape)
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    large = 13.0 - np.linalg.norm(points - middle - np.array([6, -4, 5]), axis=-1)
    small = 7.0 - np.linalg.norm(points - middle - np.array([-9, 8, -14]), axis=-1)
    return np.asarray(np.maximum(large, small))


def as_values(depth: NDArray[np.float64]) -> NDArray[np.int16]:
    """50 on the surface, 10 more for each mm inward: linear, so that interpolation is exact but near the middles."""
    return np.rint(50 + 10 * np.clip(depth, -5, 5)).astype(np.int16)


def near(found: NDArray[Any], depth: NDArray[np.float64], mm: float) -> None:
    """Every voxel that is deeper than `mm` in or out of the body is labelled rightly."""
    assert not found[depth < -mm].any()
    assert found[depth > mm].all()


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("flipped", [False, True])
def test_labels_come_back_unmirrored_and_unshifted_from_any_oblique_volume(
    axes: tuple[int, int, int], flipped: bool, tmp_path: Path
) -> None:
    affine = oblique_affine()
    affine[:3, :3] = affine[:3, list(axes)]
    if flipped:
        affine[:3, 1] *= -1
    depth = depth_mm(affine)
    pipeline = load_pipeline(write_bundle(tmp_path / "spleen", ct_segmentation(), ONE, weigh=thresholds(0.5)), device="cpu")
    found = pipeline.run(as_volume(as_values(depth), affine))
    assert isinstance(found, Findings)
    (label_map,) = found.label_maps
    assert label_map.labels.shape == SHAPE
    near(label_map.labels == 1, depth, 0.6)
    (segment,) = label_map.segments
    assert segment.voxels == np.count_nonzero(label_map.labels)
    assert segment.type.value == "78961009"  # SNOMED CT: spleen, by its name alone
    assert set(found.timings_s) == {"preprocess", "forward", "postprocess"}


@pytest.mark.parametrize("layout", ["own inverse", "labels inverted", "no inverse", "loader makes channels", "cropped"])
def test_our_resampling_gives_what_the_bundles_own_gives(layout: str, tmp_path: Path) -> None:
    config = ct_segmentation()
    before, after = (config[key]["transforms"] for key in ("preprocessing", "postprocessing"))
    if layout == "labels inverted":
        after[1], after[2] = after[2], after[1]
    elif layout == "no inverse":
        del after[1]
    elif layout == "loader makes channels":
        before[:2] = [{"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}]
    elif layout == "cropped":
        before.append(
            {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "margin": 2, "allow_smaller": True}
        )
    rules = ONE + "[fast]\nown_resampling = true\n"
    pipeline = load_pipeline(write_bundle(tmp_path / "spleen", config, rules, weigh=thresholds(0.5)), device="cpu")
    affine = oblique_affine()
    depth = depth_mm(affine)
    labels = {}
    for speed in ("exact", "fast"):
        found = pipeline.run(as_volume(as_values(depth), affine), speed=speed)  # type: ignore[arg-type]
        assert isinstance(found, Findings)
        labels[speed] = found.label_maps[0].labels > 0
    if layout == "labels inverted":  # its own way takes the nearest voxel: ours differs, fails the self-test and is not taken
        assert found.run["self-test"].startswith("failed")
        assert np.array_equal(labels["fast"], labels["exact"])
        return
    near(labels["fast"], depth, 0.6)
    dice = 2 * np.count_nonzero(labels["exact"] & labels["fast"]) / sum(np.count_nonzero(one) for one in labels.values())
    assert dice > 0.995


def test_a_bundle_whose_steps_cannot_be_followed_keeps_its_own_way_at_any_speed(tmp_path: Path) -> None:
    config = ct_segmentation()
    config["preprocessing"]["transforms"][3]["mode"] = "nearest"
    rules = ONE + "[fast]\nown_resampling = true\n"
    pipeline = load_pipeline(write_bundle(tmp_path / "spleen", config, rules, weigh=thresholds(0.5)), device="cpu")
    affine = oblique_affine()
    one, other = (pipeline.run(as_volume(as_values(depth_mm(affine)), affine), speed=s) for s in ("exact", "fast"))  # type: ignore[arg-type]
    assert isinstance(one, Findings)
    assert isinstance(other, Findings)
    assert np.array_equal(one.label_maps[0].labels, other.label_maps[0].labels)
