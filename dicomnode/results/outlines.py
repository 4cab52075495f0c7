"""Outlines of masks, in the image coordinates of DICOM: (column, row), the top left corner of the first pixel is (0, 0)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Findings, LabelMap, Lesion

CIRCLE_POINTS = 32
PIXEL_CENTRE = 0.5  # PS3.3 C.18.6.1.1: the centre of the first pixel is (0.5, 0.5)

HOT = 128  # of 255: half of a heat map's range


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed curves around the parts of a mask (y, x), longest first; (n, 2) points, first = last."""
    # Late: the import costs half a second, and light commands import this room.
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float32)
    offset = (PIXEL_CENTRE + left - 1, PIXEL_CENTRE + top - 1)
    curves: list[Any] = find_contours(part, 0.5)
    return sorted((curve[:, ::-1] + offset for curve in curves), key=len, reverse=True)


def label_map_of(findings: Findings, lesion: Lesion) -> tuple[LabelMap, int] | None:
    """The label map and the voxel value of a lesion with a segment of its own."""
    if lesion.segment is None:
        return None
    name, number = lesion.segment
    return next(((one, number) for one in findings.label_maps if one.name == name), None)


def key_slice(findings: Findings, lesion: Lesion) -> int:
    """The slice to show for a lesion: its key slice, or where that holds none of it, the one with most of it."""
    found = label_map_of(findings, lesion)
    if found is None:
        return lesion.key_slice_index
    labels, number = found[0].labels, found[1]
    if np.any(labels[lesion.key_slice_index] == number):
        return lesion.key_slice_index
    return int(np.argmax([np.count_nonzero(one == number) for one in labels]))


def key_slices_of(findings: Findings, slices: int) -> list[int]:
    """Slice indices: of each lesion and box the slice that shows most of it, of each heat map the hottest. Ascending."""
    found = {key_slice(findings, lesion) for lesion in findings.lesions}
    found |= {(box.start[0] + box.stop[0] - 1) // 2 for box in findings.boxes}
    found |= {int(one.values.reshape(slices, -1).max(axis=1).argmax()) for one in findings.heatmaps if one.values.any()}
    return sorted(index for index in found if 0 <= index < slices)


def lesion_outline(findings: Findings, lesion: Lesion, affine: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """(slice index, closed curve) of a lesion: its mask's largest outline, or without a segment a circle of its long axis."""
    index = key_slice(findings, lesion)
    found = label_map_of(findings, lesion)
    if found is not None:
        curves = outlines(found[0].labels[index] == found[1])
        if curves:
            return index, curves[0]
    slice_at, row, column, _ = np.linalg.solve(affine, np.array([*lesion.center_mm, 1.0]))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    angle = np.linspace(0, 2 * np.pi, CIRCLE_POINTS + 1)
    radius = max(lesion.long_axis_mm, spacing[1] * 2) / 2
    circle = np.stack([column + radius / spacing[2] * np.cos(angle), row + radius / spacing[1] * np.sin(angle)], axis=1)
    return round(slice_at), circle + PIXEL_CENTRE
