"""The curves that belong on one slice, whoever draws them: captures as pixels, presentation states as vectors."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Box, Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results.outlines import key_slice, lesion_outline, outlines
from dicomnode.results.wording import percent

LESION_COLOR = (255, 90, 90)
BOX_COLOR = (255, 196, 64)


class GraphicKind(StrEnum):
    """What a curve is drawn around."""

    ORGAN = "ORGAN"
    LESION = "LESION"
    BOX = "BOX"


@dataclass(frozen=True, slots=True, eq=False)
class Graphic:
    """One closed curve, (n, 2) as (column, row), the corner of the first pixel at (0, 0). `name` is written beside it."""

    kind: GraphicKind
    points: NDArray[np.float64]
    color_rgb: tuple[int, int, int]
    name: str = ""
    tracking_id: str = ""
    tracking_uid: str = ""


def graphics_of(image: Volume | Image2D, findings: Findings, index: int) -> list[Graphic]:
    """All curves of slice `index` (0-based z): organs, then lesions (the longest curve of each first), then boxes."""
    return [*_organs(findings, index), *_lesions(image, findings, index), *_boxes(findings, index)]


def name_of(found: Lesion | Box) -> str:
    """Label and probability."""
    return f"{found.label}  {percent(found.probability)}"


def _organs(findings: Findings, index: int) -> list[Graphic]:
    lesions = {lesion.segment for lesion in findings.lesions}
    return [
        Graphic(GraphicKind.ORGAN, curve, segment.color_rgb)
        for one in findings.label_maps
        for segment in one.segments
        if (one.name, segment.number) not in lesions
        for curve in outlines(one.labels[index] == segment.number)
    ]


def _lesions(image: Volume | Image2D, findings: Findings, index: int) -> list[Graphic]:
    found: list[Graphic] = []
    for lesion in findings.lesions:
        curves: list[NDArray[np.float64]] = []
        color = LESION_COLOR
        for one in findings.label_maps:
            for segment in one.segments:
                if lesion.segment == (one.name, segment.number):
                    curves, color = outlines(one.labels[index] == segment.number), segment.color_rgb
        if lesion.segment is None and isinstance(image, Volume) and key_slice(findings, lesion) == index:
            curves = [lesion_outline(findings, lesion, image.affine)[1]]
        name = name_of(lesion)
        found += [Graphic(GraphicKind.LESION, curve, color, name, lesion.tracking_id, lesion.tracking_uid) for curve in curves]
    return found


def _boxes(findings: Findings, index: int) -> list[Graphic]:
    found = []
    for box in findings.boxes:
        if box.start[0] <= index < box.stop[0]:
            (top, left), (bottom, right) = box.start[1:], box.stop[1:]
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64)
            found.append(Graphic(GraphicKind.BOX, corners, BOX_COLOR, name_of(box)))
    return found
