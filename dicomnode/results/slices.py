"""One source slice with what was found on it: contours, boxes, heat map, names, sides.

The slice is shown as the source stores it (not turned, not flipped), in the source's window. No name, ID or date is drawn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomnode.domain.findings import Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results import drawing
from dicomnode.results.drawing import AMBER, GREY, WHITE, Curve, Rectangle
from dicomnode.results.outlines import key_slice, lesion_outline, outlines
from dicomnode.results.wording import percent

SHORTEST_SIDE, LONGEST_SIDE = 512, 2048
LUNG_WINDOW = (-600.0, 1500.0)  # for a CT that names no window
VIEWER_BAR = 0.10  # OHIF's cine bar covers the top tenth
LEGEND_TOP = 0.885  # names end above the two lines at the bottom
LESION_COLOR = (255, 90, 90)
ORGAN_WIDTH, LESION_WIDTH = 1.0, 1.5  # in pixels of a picture of 512
_AXES = (("L", "R"), ("P", "A"), ("H", "F"))  # LPS: positive, negative end


@dataclass(frozen=True, slots=True)
class Look:
    """What is written on a slice beside the findings; empty strings write nothing."""

    notice: str = ""
    caption: str = ""
    names: bool = True
    sides: bool = True
    shortest_side: int = SHORTEST_SIDE


def stack_of(image: Volume | Image2D) -> NDArray[np.generic]:
    """Pixels as (z, y, x); a projection image is one slice."""
    return image.pixels if isinstance(image, Volume) else image.pixels[None]


def spacing_of(image: Volume | Image2D) -> tuple[float, float]:
    """(y, x) in mm; (1, 1) where nothing is known."""
    if isinstance(image, Volume):
        return image.spacing_mm[1], image.spacing_mm[2]
    return image.pixel_spacing_mm or (1.0, 1.0)


def window_of(image: Volume | Image2D) -> tuple[float, float]:
    """(centre, width) of the source, else a lung window for CT, else the middle 98 % of the values."""
    headers = image.headers
    if headers.window_center is not None and headers.window_width is not None and headers.window_width > 1:
        return headers.window_center, headers.window_width
    if headers.modality == "CT":
        return LUNG_WINDOW
    low, high = np.percentile(stack_of(image)[:, ::4, ::4].astype(np.float32), (1, 99))
    return float(low + high) / 2, max(2.0, float(high - low))


def windowed(pixels: NDArray[np.generic], window: tuple[float, float]) -> NDArray[np.uint8]:
    """8-bit grey by PS3.3 C.11.2.1.2.1 (LINEAR)."""
    center, width = window
    grey = (pixels.astype(np.float32) - np.float32(center - 0.5)) / np.float32(width - 1) + np.float32(0.5)
    return (grey.clip(0, 1) * 255).round().astype(np.uint8)


def slice_picture(image: Volume | Image2D, findings: Findings, index: int, look: Look) -> Image.Image:
    """RGB picture of slice `index` (0-based z) with its findings. Pixels of the source are shown in their true proportions."""
    grey = windowed(stack_of(image)[index], window_of(image))
    scale_x, scale_y = _scales(grey.shape, spacing_of(image), look.shortest_side)
    size = (round(grey.shape[1] * scale_x), round(grey.shape[0] * scale_y))
    picture = Image.fromarray(grey)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    picture = picture.convert("RGB")
    for heat_map in findings.heatmaps:
        picture = drawing.blend_heat(picture, heat_map.values[index])
    stretch = np.array([scale_x, scale_y])
    lesions = _lesion_curves(image, findings, index)
    thickness = min(size) / SHORTEST_SIDE
    drawing.draw_curves(picture, _organ_curves(findings, index, stretch, ORGAN_WIDTH * thickness))
    for _, color, curve in lesions:
        drawing.draw_curves(picture, [Curve(curve * stretch, color, LESION_WIDTH * thickness)])
    _draw_boxes(picture, findings, index, stretch, thickness, look.names)
    if look.names:
        _draw_names(picture, [(_name(one), color, curve * stretch) for one, color, curve in lesions])
        for heat_map in findings.heatmaps:
            highest = heat_map.minimum + heat_map.scale * 255
            drawing.draw_color_bar(picture, heat_map.name, heat_map.minimum, highest)
    if look.sides and isinstance(image, Volume):
        draw_sides(picture, image.affine)
    _draw_legend(picture, look)
    return picture


def centre_in_picture(
    image: Volume | Image2D, findings: Findings, lesion: Lesion, size: tuple[int, int]
) -> tuple[tuple[float, float], float]:
    """Where a lesion's outline is centred in a picture of this size (x, y), and the picture's pixels per mm."""
    affine = image.affine if isinstance(image, Volume) else np.eye(4)
    _, curve = lesion_outline(findings, lesion, affine)
    rows, columns = stack_of(image).shape[1:]
    x, y = (curve.min(axis=0) + curve.max(axis=0)) / 2 * (size[0] / columns, size[1] / rows)
    return (float(x), float(y)), size[0] / columns / spacing_of(image)[1]


def _scales(shape: tuple[int, ...], spacing: tuple[float, float], shortest_side: int) -> tuple[float, float]:
    """(x, y) magnification: true proportions, at least the side asked for, at most 2048."""
    finest = min(spacing)
    height, width = shape[0] * spacing[0] / finest, shape[1] * spacing[1] / finest
    factor = max(1.0, shortest_side / min(height, width))
    factor = min(factor, LONGEST_SIDE / max(height, width))
    return factor * spacing[1] / finest, factor * spacing[0] / finest


def _organ_curves(findings: Findings, index: int, stretch: NDArray[np.float64], width: float) -> list[Curve]:
    lesions = {lesion.segment for lesion in findings.lesions}
    return [
        Curve(curve * stretch, drawing.visible(segment.color_rgb), width)
        for one in findings.label_maps
        for segment in one.segments
        if (one.name, segment.number) not in lesions
        for curve in outlines(one.labels[index] == segment.number)
    ]


type_lesion_curve = tuple[Lesion, tuple[int, int, int], NDArray[np.float64]]


def _lesion_curves(image: Volume | Image2D, findings: Findings, index: int) -> list[type_lesion_curve]:
    """One entry for each closed curve; the longest of a lesion first."""
    found: list[type_lesion_curve] = []
    for lesion in findings.lesions:
        for one in findings.label_maps:
            for segment in one.segments:
                if lesion.segment == (one.name, segment.number):
                    curves = outlines(one.labels[index] == segment.number)
                    found += [(lesion, drawing.visible(segment.color_rgb), curve) for curve in curves]
        if lesion.segment is None and isinstance(image, Volume) and key_slice(findings, lesion) == index:
            found.append((lesion, LESION_COLOR, lesion_outline(findings, lesion, image.affine)[1]))
    return found


def _name(lesion: Lesion) -> str:
    return f"{lesion.label}  {percent(lesion.probability)}"


def _draw_boxes(
    picture: Image.Image, findings: Findings, index: int, stretch: NDArray[np.float64], thickness: float, names: bool
) -> None:
    for box in findings.boxes:
        if box.start[0] <= index < box.stop[0]:
            (top, left), (bottom, right) = box.start[1:], box.stop[1:]
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64) * stretch
            drawing.draw_curves(picture, [Curve(corners, AMBER, LESION_WIDTH * thickness)])
            if names:
                _draw_names(picture, [(f"{box.label}  {percent(box.probability)}", AMBER, corners)])


def _draw_names(picture: Image.Image, named: list[tuple[str, tuple[int, int, int], NDArray[np.float64]]]) -> None:
    """Each name once, beside its curve, on none of the others, clear of the viewer's bar and of the legend."""
    width, height = picture.size
    size = max(13, height // 36)
    safe = Rectangle(6, height * VIEWER_BAR + 4, width - 6, height * LEGEND_TOP)
    taken = [Rectangle(*curve.min(axis=0), *curve.max(axis=0)) for _, _, curve in named]
    done: set[str] = set()
    for name, color, curve in named:
        if name in done:
            continue
        done.add(name)
        place = _free_place(drawing.text_size(name, size), Rectangle(*curve.min(axis=0), *curve.max(axis=0)), taken, safe)
        taken.append(place)
        drawing.draw_plate(picture, (place.left, place.top), name, size, color, "lt")


def _free_place(text: tuple[float, float], around: Rectangle, taken: list[Rectangle], safe: Rectangle) -> Rectangle:
    text_width, text_height = text
    gap = text_height * 0.6
    middle = (around.top + around.bottom - text_height) / 2
    centre = (around.left + around.right - text_width) / 2
    corners = (
        (around.right + gap, middle),
        (around.left - gap - text_width, middle),
        (centre, around.top - gap - text_height),
        (centre, around.bottom + gap),
        (around.right + gap, around.top - gap - text_height),
        (around.right + gap, around.bottom + gap),
        (around.left - gap - text_width, around.top - gap - text_height),
        (around.left - gap - text_width, around.bottom + gap),
    )
    for left, top in corners:
        place = Rectangle(left, top, left + text_width, top + text_height)
        inside = left >= safe.left and place.right <= safe.right and top >= safe.top and place.bottom <= safe.bottom
        if inside and not any(place.meets(other) for other in taken):
            return place
    left = min(max(corners[0][0], safe.left), safe.right - text_width)
    top = min(max(corners[0][1], safe.top), safe.bottom - text_height)
    return Rectangle(left, top, left + text_width, top + text_height)


def sides_of(affine: NDArray[np.float64]) -> tuple[str, str]:
    """Letters of the patient's sides at the left and the right edge of the picture."""
    along_row = affine[:3, 2]
    axis = int(np.argmax(np.abs(along_row)))
    positive, negative = _AXES[axis]
    return (negative, positive) if along_row[axis] > 0 else (positive, negative)


def draw_sides(picture: Image.Image, affine: NDArray[np.float64]) -> None:
    """R and L (or what is there) at the left and the right edge."""
    width, height = picture.size
    size = max(18, height // 22)
    left, right = sides_of(affine)
    drawing.draw_text(picture, (width * 0.02, height / 2), left, size, WHITE, "lm")
    drawing.draw_text(picture, (width * 0.98, height / 2), right, size, WHITE, "rm")


def _draw_legend(picture: Image.Image, look: Look) -> None:
    width, height = picture.size
    size = max(13, height // 38)
    for text, share, color in ((look.caption, 0.895, GREY), (look.notice, 0.93, AMBER)):
        if text:
            drawing.draw_text(
                picture, (width / 2, height * share), drawing.shorten(text, size, width * 0.94), size, color, "mt"
            )
