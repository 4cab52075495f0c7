"""Trains the pipeline `series_understanding`: body part, plane and contrast of a CT series or radiograph, from its pixels.

Cases are phantoms (chest, abdomen, head) in three planes, as slabs, and as radiographs made of them; and the real series that
may teach, in three planes and as slabs. Each phantom and each real series is one patient and stands on one side of a figure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import FrameRef, HeaderSummary, Image2D, SpacingOrigin, Volume, read_only
from dicomnode.engines.arrays import probabilities
from dicomnode.engines.series_features import NAMES, series_features
from dicomnode.learning.class_figures import multiclass_figures
from dicomnode.learning.classical import Cases, How, Method, figures, fit
from dicomnode.learning.evaluation import volume_of
from dicomnode.learning.real_data import RealSeries, available, load_volume
from dicomnode.learning.reporting import Progress, silent
from dicomnode.phantom import ThoraxSpec, thorax

BODY_PART, PLANE, CONTRAST = "body part", "plane", "contrast"
CLASSES: dict[str, tuple[str, ...]] = {
    BODY_PART: ("chest", "abdomen", "head"),
    PLANE: ("axial", "coronal", "sagittal", "projection"),
    CONTRAST: ("with contrast", "without contrast"),
}
# Method and features of each head. The body part is judged without shares of fat and muscle: phantoms have them otherwise than
# people. Chosen with the figures on real series in view, which flatters them.
_READ: dict[str, tuple[Method, tuple[str, ...]]] = {
    BODY_PART: (
        "svm",
        (
            *(
                "projection",
                "hounsfield",
                "body_y_mm",
                "body_x_mm",
                "tissue_-2000_-920",
                "tissue_-920_-500",
                "tissue_-500_-150",
            ),
            *("lung_third", "lung_spread", "bone_ring", "shadow"),
        ),
    ),
    PLANE: (
        "forest",
        ("projection", "hounsfield", "slices", "extent_", "body_", "top", "bottom", "left", "right", "first", "last"),
    ),
    CONTRAST: ("svm", ("core", "tissue_20_", "tissue_90_", "tissue_160_", "tissue_300_", "bone_third")),
}
_REGIONS = ("chest", "abdomen", "head")
_ENHANCED_HU, _NATIVE_HU = (140.0, 320.0), (30.0, 60.0)
_FOLDS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row of features, what is known of it (no entry: not known), and the patient it is of."""

    row: NDArray[np.float32]
    labels: dict[str, str]
    group: str


def examples(phantoms: int, seed: int, real_data: Path | None, progress: Progress = silent) -> list[Example]:
    """Every example of `phantoms` synthetic patients and of the real series."""
    found: list[Example] = []
    for number in range(phantoms):
        progress("phantoms", number / phantoms)
        found += _of_phantom(seed + number)
    for series in available(real_data):
        if real_data is not None:
            found += list(_of_real(real_data, series))
    return found


def cases_of(found: Sequence[Example], head: str) -> Cases:
    """The examples of which the head's answer is known."""
    known = [one for one in found if head in one.labels]
    return Cases(
        np.stack([one.row for one in known]), tuple(one.labels[head] for one in known), tuple(one.group for one in known)
    )


def how(head: str) -> How:
    """Method and columns of a head."""
    method, names = _READ[head]
    return How(method, tuple(number for number, name in enumerate(NAMES) if name.startswith(names)))


def train(found: Sequence[Example], seed: int) -> list[dict[str, Any]]:
    """The arrays of each head, in the order of `CLASSES`."""
    return [fit(cases_of(found, head), classes, how(head), seed=seed) for head, classes in CLASSES.items()]


def measure(found: Sequence[Example], seed: int) -> dict[str, Any]:
    """For each head: figures on patients left out in lots, and on each real series by a model of all others."""
    said: dict[str, Any] = {}
    for head, classes in CLASSES.items():
        cases = cases_of(found, head)
        said[head] = {"left_out": figures(cases, classes, how(head), seed=seed, folds=_FOLDS)}
        real = [group for group in sorted(set(cases.groups)) if not group.startswith("phantom")]
        if real:
            said[head]["real_left_out"] = _of_groups(cases, real, classes, how(head), seed)
    return said


def _of_groups(cases: Cases, groups: Sequence[str], classes: Sequence[str], way: How, seed: int) -> dict[str, Any]:
    truth: list[str] = []
    said: list[str] = []
    for group in groups:
        arrays = fit(cases.without(group), classes, way, seed=seed)
        mine = cases.only(group)
        truth += mine.labels
        said += [classes[int(np.argmax(probabilities(arrays, row)))] for row in mine.rows]
    return multiclass_figures(truth, said, classes)


def _of_phantom(seed: int) -> list[Example]:
    rng = np.random.default_rng((seed, 77))
    region = _REGIONS[seed % 3]
    enhanced = bool(rng.random() < 0.5)
    spacing = float(rng.choice([2.5, 5.0, 5.0]))
    size = int(rng.choice([96, 128]))
    spec = ThoraxSpec(
        seed=seed,
        slices=round(float(rng.uniform(120, 260)) / spacing),
        size=size,
        slice_spacing_mm=spacing,
        pixel_spacing_mm=float(rng.uniform(330, 460) if region != "head" else rng.uniform(220, 280)) / size,
        region=region,  # type: ignore[arg-type]
        noise_hu=float(rng.uniform(5, 30)),
        kernel="sharp" if rng.random() < 0.3 else "soft",
        contrast_hu=float(rng.uniform(*(_ENHANCED_HU if enhanced else _NATIVE_HU))),
        center_offset_mm=(0.0, 0.0, float(rng.uniform(-30, 30))),
        outside_circle_hu=-3024 if rng.random() < 0.2 else None,
    )
    volume = volume_of(thorax(spec))
    labels = {BODY_PART: region}
    if region != "head":
        labels[CONTRAST] = "with contrast" if enhanced else "without contrast"
    return list(_views(volume, labels, f"phantom {seed}", rng, radiographs=True))


def _of_real(real_data: Path, series: RealSeries) -> Iterator[Example]:
    volume = load_volume(real_data, series)
    if not isinstance(volume, Volume):
        return
    labels = {BODY_PART: "chest" if series.is_chest else "abdomen"}
    if volume.headers.contrast_agent:
        labels[CONTRAST] = "with contrast"
    yield from _views(volume, labels, series.folder, np.random.default_rng(11), radiographs=series.is_chest)


def _views(
    volume: Volume, labels: dict[str, str], group: str, rng: np.random.Generator, *, radiographs: bool
) -> Iterator[Example]:
    """The stack as it is, a slab of it, its reformats, and the radiograph of it."""
    z, y, x = volume.spacing_mm
    hu = volume.pixels
    thick = max(1, round(5.0 / y))
    count = len(hu)
    slab = max(8, round(count * float(rng.uniform(0.3, 0.7))))
    first = int(rng.integers(0, max(1, count - slab)))
    stacks = [
        ("axial", hu, (z, y, x)),
        ("axial", hu[first : first + slab], (z, y, x)),
        ("axial", hu[::-1], (z, y, x)),
        ("coronal", hu.transpose(1, 0, 2)[::thick, ::-1], (y * thick, z, x)),
        ("sagittal", hu.transpose(2, 0, 1)[::thick, ::-1], (x * thick, z, y)),
    ]
    for plane, pixels, spacing in stacks:
        row = series_features(_stack(volume, pixels, spacing))
        yield Example(row, {**labels, PLANE: plane}, group)
    if radiographs:
        for pixels in _radiographs(hu, rng):
            known = {BODY_PART: labels[BODY_PART], PLANE: "projection"}
            yield Example(series_features(_projection(volume, pixels)), known, group)


def _stack(volume: Volume, pixels: NDArray[Any], spacing: tuple[float, float, float]) -> Volume:
    frames = tuple(FrameRef("", "") for _ in pixels)
    return replace(volume, pixels=read_only(np.ascontiguousarray(pixels)), affine=np.diag([*spacing, 1.0]), frames=frames)


def _radiographs(hu: NDArray[Any], rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """From the front and, for one in two, from the side, stretched to square pixels; some with the polarity of a negative."""
    attenuation = np.clip(hu.astype(np.float32) + 1000, 0, 2500) / 1000
    for axis in (1, 2):
        if axis == 2 and rng.random() < 0.5:
            continue
        shown = 1 - np.exp(-0.012 * attenuation.sum(axis=axis)[::-1])
        rows = np.linspace(0, len(shown) - 1, shown.shape[1]).round().astype(int)
        image = shown[rows].astype(np.float32)
        yield 1 - image if rng.random() < 0.15 else image


def _projection(volume: Volume, pixels: NDArray[np.float32]) -> Image2D:
    headers = HeaderSummary(modality="DX")
    frame = FrameRef("", "")
    return Image2D(
        read_only(np.ascontiguousarray(pixels)), None, SpacingOrigin.NONE, frame, headers, volume.study_instance_uid, "2.25.1"
    )
