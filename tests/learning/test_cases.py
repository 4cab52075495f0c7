"""Training cases and patches: right grid, right truth, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.learning.cache import list_cases, load_case, note_errors, save_case
from dicomnode.learning.cases import GRID_MM, TRUTH_LESION, TRUTH_LUNG, TRUTH_OUTSIDE, Case
from dicomnode.learning.losses import SegmentationLoss
from dicomnode.learning.mining import false_lesions, unseen_lesions
from dicomnode.learning.patches import PatchDataset, lesion_weights
from dicomnode.learning.real import KnownFinding, RealScan, on_network_grid, planted_case, prepare
from dicomnode.phantom import ThoraxSpec, thorax


def tiny_case(name: str, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    image = np.full((40, 40, 24), 40, dtype=np.int16)
    truth = np.zeros(image.shape, dtype=np.uint8)
    image[8:32, 8:32, 4:20], truth[8:32, 8:32, 4:20] = -850, TRUTH_LUNG
    image[16:20, 16:20, 10:14], truth[16:20, 16:20, 10:14] = 50, TRUTH_LESION
    image[:3], truth[:3] = -1000, TRUTH_OUTSIDE
    image += rng.normal(0, 10, image.shape).astype(np.int16)
    return Case(name, image, truth, np.array([[18, 18, 12]], np.float32))


def test_a_case_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    case = tiny_case("one")
    save_case(tmp_path, case)
    assert list_cases(tmp_path) == ["one"]
    again = load_case(tmp_path, "one")
    assert np.array_equal(again.image, case.image)
    assert np.array_equal(again.truth, case.truth)
    assert np.allclose(again.lesions, case.lesions)


def test_patches_follow_from_the_seed_and_hold_labels_the_loss_knows(tmp_path: Path) -> None:
    save_case(tmp_path, tiny_case("one"))
    dataset = PatchDataset([str(tmp_path)], [1.0], (32, 32, 16), length=6, seed=3)
    again = PatchDataset([str(tmp_path)], [1.0], (32, 32, 16), length=6, seed=3)
    for index in range(len(dataset)):
        item = dataset[index]
        assert torch.equal(item["image"], again[index]["image"])
        assert item["image"].shape == (1, 32, 32, 16)
        assert 0 <= float(item["image"].min()) <= float(item["image"].max()) <= 1
        classes, weights = item["label"]
        assert classes.shape == weights.shape == (32, 32, 16)
        assert set(classes[weights > 0].unique().tolist()) <= {0, 1, 2}


def test_false_lesions_become_traps_and_true_ones_do_not(tmp_path: Path) -> None:
    case = tiny_case("scan-0")
    probability = np.zeros(case.image.shape, np.float32)
    probability[17:19, 17:19, 11:13] = 0.9  # on the lesion
    probability[25:28, 25:28, 6:9] = 0.9  # in plain lung
    probability[10, 10, 10] = 0.9  # too small to matter
    traps = false_lesions(case, probability)
    assert traps.tolist() == [[26.0, 26.0, 7.0]]
    save_case(tmp_path, case)
    note_errors(tmp_path, "scan-0", traps)
    assert load_case(tmp_path, "scan-0").traps.tolist() == [[26.0, 26.0, 7.0]]


def test_lesions_that_a_network_missed_are_looked_at_more_often(tmp_path: Path) -> None:
    case = tiny_case("scan-0")
    seen = np.zeros(case.image.shape, np.float32)
    seen[18, 18, 12] = 0.9
    assert len(unseen_lesions(case, seen)) == 0
    missed = unseen_lesions(case, np.zeros(case.image.shape, np.float32))
    assert np.linalg.norm(missed[0] - case.lesions[0]) < 1.5
    save_case(tmp_path, case)
    for number in range(9):
        save_case(tmp_path, tiny_case(f"scan-{number + 1}"))
    before = drawn_names(tmp_path)
    note_errors(tmp_path, "scan-0", np.zeros((0, 3), np.float32), missed)
    assert drawn_names(tmp_path).count("scan-0") > 2 * before.count("scan-0")


def drawn_names(folder: Path) -> list[str]:
    pool = PatchDataset([str(folder)], [1.0], (16, 16, 16), length=2).pools[0]
    rng = np.random.default_rng(4)
    return [pool.draw(rng)[0] for _ in range(300)]


def test_held_out_cases_are_never_drawn(tmp_path: Path) -> None:
    save_case(tmp_path, tiny_case("scan_a-0"))
    save_case(tmp_path, tiny_case("scan_b-0"))
    dataset = PatchDataset([str(tmp_path)], [1.0], (16, 16, 16), length=2, held_out=("scan_a",))
    assert [name for pool in dataset.pools for name in pool.names] == ["scan_b-0"]
    with pytest.raises(ValueError, match="no training cases"):
        PatchDataset([str(tmp_path)], [1.0], (16, 16, 16), length=2, held_out=("scan_a", "scan_b"))


def test_ignored_voxels_do_not_move_the_loss() -> None:
    torch.manual_seed(0)
    loss = SegmentationLoss()
    logits = torch.randn(1, 3, 8, 8, 8)
    classes, weights = torch.randint(0, 3, (1, 8, 8, 8)), torch.ones(1, 8, 8, 8, dtype=torch.long)
    classes[..., :4], weights[..., :4] = 255, 0
    label = torch.stack([classes, weights], dim=1)
    other = logits.clone()
    other[..., :4] += 5 * torch.randn(1, 3, 8, 8, 4)
    assert float(loss(logits, label)) == pytest.approx(float(loss(other, label)))
    right = 20.0 * torch.nn.functional.one_hot(classes.clamp(max=2), 3).permute(0, 4, 1, 2, 3).float()
    assert float(loss(right, label)) < 0.02


def test_a_small_lesion_counts_more_by_voxel_and_one_missed_in_a_patch_costs_as_much_beside_a_large_one() -> None:
    truth = np.full((64, 48, 48), TRUTH_LUNG, np.uint8)
    truth[4:32, 4:32, 4:32], truth[50:54, 20:24, 20:23] = TRUTH_LESION, TRUTH_LESION
    truth[60:] = 255
    weights = lesion_weights(truth)
    assert weights[10, 10, 10] == 1
    assert weights[51, 21, 21] == 5
    assert (weights[40] == 1).all()
    assert (weights[60:] == 0).all()
    loss = SegmentationLoss()
    label = torch.from_numpy(np.stack([truth, weights])).reshape(2, 2, 32, 48, 48).transpose(0, 1)
    seen = 20.0 * torch.nn.functional.one_hot(label[:, 0].long().clamp(max=2), 3).permute(0, 4, 1, 2, 3).float()
    missed = seen.clone()
    small = (label[1, 0] == TRUTH_LESION) & (label[1, 1] > 0)
    missed[1, 2][small], missed[1, 1][small] = 0.0, 20.0
    assert float(loss(missed, label)) - float(loss(seen, label)) > 0.2


def test_nodules_planted_into_a_scan_change_its_voxels_exactly_where_truth_says() -> None:
    phantom = thorax(ThoraxSpec(seed=5, slices=40, size=160, slice_spacing_mm=5, pixel_spacing_mm=2.3, nodules=(), noise_hu=5))
    x, y, z = (float(value) for value in phantom.affine[:3, 3])
    scan = RealScan("scan", phantom.hu, phantom.spacing_mm, (z, y, x))
    case = planted_case(prepare(scan), variant=0, seed=1, nodules=6)
    plain = on_network_grid(phantom.hu.astype(np.float32), phantom.spacing_mm)
    assert case.image.shape == plain.shape
    changed = np.abs(case.image - plain) > 60
    lesion = case.truth == TRUTH_LESION
    assert lesion.sum() > 50
    assert np.mean(changed[lesion]) > 0.6
    assert np.mean(changed[~lesion]) < 0.01
    assert len(case.lesions) >= 3
    place = np.round(case.lesions[0]).astype(int)
    assert lesion[tuple(slice(max(0, p - 5), p + 6) for p in place)].any()


def test_the_networks_grid_keeps_the_first_voxel_and_interpolates_linearly() -> None:
    z, y, x = np.meshgrid(np.arange(10.0), np.arange(12.0), np.arange(14.0), indexing="ij")
    ramp = (3 * z * 2.0 + 5 * y * 0.7 + 7 * x * 0.9).astype(np.float32)  # linear in mm
    grid = on_network_grid(ramp, (2.0, 0.7, 0.9))
    i, j, k = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    expected = 7 * i * GRID_MM[0] + 5 * j * GRID_MM[1] + 3 * k * GRID_MM[2]
    assert np.allclose(grid, expected, atol=1e-2)


def test_a_known_finding_without_a_border_is_ignored_not_taught() -> None:
    phantom = thorax(ThoraxSpec(seed=5, slices=40, size=160, slice_spacing_mm=5, pixel_spacing_mm=2.3, nodules=()))
    x, y, z = (float(value) for value in phantom.affine[:3, 3])
    finding = KnownFinding((70.0, 0.0, 10.0), 12.0, label=False)
    prepared = prepare(RealScan("scan", phantom.hu, phantom.spacing_mm, (z, y, x), (finding,)))
    assert np.count_nonzero(prepared.truth == 255) > 0
    assert not (prepared.truth == TRUTH_LESION).any()
