"""An asymmetric phantom in six orientations: files → imaging → pipeline → SEG → another reader, unmirrored and unshifted."""

from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Volume
from dicomnode.domain.profiles import SHIPPED
from dicomnode.domain.results import ResultKind
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.imaging import load
from dicomnode.phantom import Phantom, ThoraxSpec, thorax
from dicomnode.phantom.spec import NoduleSpec
from dicomnode.results import build, verify
from tests.imaging.writing import CORONAL, SAGITTAL, Slices, decimal, put_pixels, save
from tests.results.cases import request_for

NODULE = NoduleSpec((-75.0, 20.0, 10.0), 18.0, hu=60.0)  # in the right lung alone: a mirrored result has it in the left
KEEPING = replace(SHIPPED["ohif"], keep_empty_frames=True)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial, prone": (-1, 0, 0, 0, -1, 0),
    "axial, seen from the head": (-1, 0, 0, 0, 1, 0),
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "coronal, seen from behind": (-1, 0, 0, 0, 0, -1),
}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return thorax(
        ThoraxSpec(seed=7, slices=40, size=96, slice_spacing_mm=6.0, pixel_spacing_mm=4.0, nodules=(NODULE,), noise_hu=8.0)
    )


@pytest.fixture(scope="module")
def tiny() -> Pipeline:
    return load_pipeline(Path(__file__).parents[1] / "pipelines" / "tiny", device="cpu")


def turned(phantom: Phantom, orientation: tuple[float, ...]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The phantom's voxels as (slice, row, column) for rows and columns in these directions, and their affine."""
    row, column = np.array(orientation[:3], int), np.array(orientation[3:], int)
    pixels, affine, order, flipped = phantom.hu, phantom.affine, [], []
    for axis, direction in enumerate((np.cross(row, column), column, row)):
        world = int(np.flatnonzero(direction)[0])
        order.append(2 - world)  # the phantom's axes are z, y, x
        if direction[world] < 0:
            flipped.append(axis)
    pixels, affine = pixels.transpose(order), affine[:, [*order, 3]].copy()
    for axis in flipped:
        affine[:3, 3] += affine[:3, axis] * (pixels.shape[axis] - 1)
        affine[:3, axis] *= -1
    return np.ascontiguousarray(np.flip(pixels, flipped)), affine


def write(phantom: Phantom, orientation: tuple[float, ...], folder: Path) -> tuple[Volume, list[Path]]:
    """The phantom as a CT series in this orientation, and what imaging makes of it."""
    pixels, affine = turned(phantom, orientation)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    made = Slices(
        number=len(pixels),
        step_mm=float(steps[0]),
        orientation=orientation,
        origin=affine[:3, 3],
        pixel_spacing=(float(steps[1]), float(steps[2])),
        elements={"BodyPartExamined": "CHEST", "StudyDate": "20260102", "StudyTime": "101500", "PatientName": "PHANTOM"},
    )
    data_sets = made.data_sets()
    for index, data_set in enumerate(data_sets):
        put_pixels(data_set, (pixels[index] + 1024).astype(np.int16))
        data_set.ImagePositionPatient = [decimal(value) for value in (affine @ [index, 0, 0, 1])[:3]]
    series = save(folder, data_sets)
    volume = load(series)
    assert isinstance(volume, Volume), volume
    return volume, [one.path for one in series.instances]


def in_phantom(phantom: Phantom, mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The voxels of `mask` on the phantom's grid; each must lie on one."""
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    inverse = np.linalg.inv(phantom.affine)
    indices = points @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.abs(indices - np.rint(indices)).max() < 0.01  # not shifted by a fraction of a voxel
    found = np.zeros(phantom.hu.shape, bool)
    found[tuple(np.rint(indices).astype(int).T)] = True
    return found


@pytest.fixture(scope="module")
def axial(phantom: Phantom, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    volume, _ = write(phantom, ORIENTATIONS["axial"], tmp_path_factory.mktemp("axial"))
    found = tiny.run(volume)
    assert isinstance(found, Findings)
    return found


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_patient_in_any_orientation_comes_back_from_the_seg_unmirrored_and_unshifted(
    name: str, phantom: Phantom, tiny: Pipeline, axial: Findings, tmp_path: Path
) -> None:
    (source := tmp_path / "source").mkdir()
    volume, paths = write(phantom, ORIENTATIONS[name], source)
    found = tiny.run(volume)
    assert isinstance(found, Findings)
    expected = {segment.label: one.labels == segment.number for one in axial.label_maps for segment in one.segments}
    for kept in (False, True):
        (folder := tmp_path / f"kept {kept}").mkdir()
        request = request_for(paths, kinds=(ResultKind.SEG,), profiles=(KEEPING if kept else SHIPPED["ohif"],))
        (written,) = build(found, volume, paths, request, folder)
        verify((written,), found, volume, paths)
        seg = highdicom.seg.segread(written.path)
        everything = seg.number_of_segments * len(volume.pixels)
        assert seg.number_of_frames == everything if kept else seg.number_of_frames < everything
        read = seg.get_volume()
        labels = [str(one.SegmentLabel) for one in seg.SegmentSequence]
        for index, label in enumerate(labels):
            mask = in_phantom(phantom, read.array[..., index] > 0, read.affine)
            assert (mask != expected[label]).sum() <= 1e-3 * expected[label].sum() + 2
        lungs = {label: in_phantom(phantom, read.array[..., labels.index(label)] > 0, read.affine) for label in labels[:2]}
        for number, label in ((1, "Left lung"), (2, "Right lung")):
            truth = (phantom.labels == number) | ((phantom.labels == 3) & (number == 2))
            assert 2 * (lungs[label] & truth).sum() / (lungs[label].sum() + truth.sum()) > 0.85
        nodule = min(found.lesions, key=lambda one: float(np.linalg.norm(np.subtract(one.center_mm, NODULE.center_mm))))
        assert np.linalg.norm(np.subtract(nodule.center_mm, NODULE.center_mm)) < 5
