"""One source slice with what was found on it: contours, boxes, heat map, names, sides.

The slice is shown as the source stores it (not turned, not flipped), in the source's window. No name, ID or date is drawn
unless the look names them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomnode.domain.findings import Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import TextPosition
from dicomnode.results import drawing
from dicomnode.results.drawing import AMBER, GREY, WHITE, Curve, Rectangle
from dicomnode.results.graphics import Graphic, GraphicKind, graphics_of
from dicomnode.results.outlines import lesion_outline

SHORTEST_SIDE, LONGEST_SIDE = 512, 2048
LUNG_WINDOW = (-600.0, 1500.0)  # for a CT that names no window
VIEWER_BAR = 0.10  # OHIF's cine bar covers the top tenth
LEGEND_BOTTOM = 0.96  # viewers write window and image number below
LEGEND_LINE = 0.038
WIDTHS = {GraphicKind.ORGAN: 1.0, GraphicKind.LESION: 1.5, GraphicKind.BOX: 1.5}  # in pixels of a picture of 512
_AXES = (("L", "R"), ("P", "A"), ("H", "F"))  # LPS: positive, negative end


@dataclass(frozen=True, slots=True)
class Look:
    """What is written on a slice beside the findings; empty strings write nothing.

    identity: patient and study. orientation: Patient Orientation (0020,0020) of a projection; a volume knows its own.
    """

    notice: str = ""
    caption: str = ""
    identity: str = ""
    position: TextPosition = TextPosition.BOTTOM
    orientation: tuple[str, ...] = ()
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
    thickness = min(size) / SHORTEST_SIDE
    graphics = graphics_of(image, findings, index)
    drawing.draw_curves(picture, [_curve(one, stretch, thickness) for one in graphics])
    if look.names:
        _draw_names(picture, [one for one in graphics if one.name], stretch, look)
        for heat_map in findings.heatmaps:
            highest = heat_map.minimum + heat_map.scale * 255
            drawing.draw_color_bar(picture, heat_map.name, heat_map.minimum, highest)
    if look.sides and (sides := sides_shown(image, look.orientation)):
        draw_sides(picture, *sides)
    _draw_legend(picture, look)
    return picture


def _curve(graphic: Graphic, stretch: NDArray[np.float64], thickness: float) -> Curve:
    return Curve(graphic.points * stretch, drawing.visible(graphic.color_rgb), WIDTHS[graphic.kind] * thickness)


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


def _draw_names(picture: Image.Image, named: list[Graphic], stretch: NDArray[np.float64], look: Look) -> None:
    """Each name once, beside its curve, on none of the others, clear of the viewer's bar and of the legend."""
    width, height = picture.size
    size = max(13, height // 36)
    top, bottom = _legend_free(look)
    safe = Rectangle(6, height * top + 4, width - 6, height * bottom)
    bounds = [_bounds(one.points * stretch) for one in named]
    taken = list(bounds)
    done: set[str] = set()
    for graphic, around in zip(named, bounds, strict=True):
        if graphic.name in done:
            continue
        done.add(graphic.name)
        place = _free_place(drawing.text_size(graphic.name, size), around, taken, safe)
        taken.append(place)
        color = drawing.visible(graphic.color_rgb)
        drawing.draw_plate(picture, (place.left, place.top), graphic.name, size, color, "lt")


def _bounds(curve: NDArray[np.float64]) -> Rectangle:
    return Rectangle(*curve.min(axis=0), *curve.max(axis=0))


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


def sides_shown(image: Volume | Image2D, orientation: tuple[str, ...] = ()) -> tuple[str, str] | None:
    """Letters for the left and the right edge; None where the source does not say."""
    if isinstance(image, Volume):
        return sides_of(image.affine)
    towards_right = orientation[0][:1] if orientation and orientation[0] else ""
    opposite = {one: other for pair in _AXES for one, other in (pair, pair[::-1])}
    return (opposite[towards_right], towards_right) if towards_right in opposite else None


def draw_sides(picture: Image.Image, left: str, right: str) -> None:
    """R and L (or what is there) at the left and the right edge."""
    width, height = picture.size
    size = max(18, height // 22)
    drawing.draw_text(picture, (width * 0.02, height / 2), left, size, WHITE, "lm")
    drawing.draw_text(picture, (width * 0.98, height / 2), right, size, WHITE, "rm")


def _lines(look: Look) -> list[tuple[str, drawing.type_rgb]]:
    lines = ((look.identity, WHITE), (look.caption, GREY), (look.notice, AMBER))
    return [(text, color) for text, color in lines if text]


def _legend_free(look: Look) -> tuple[float, float]:
    """Shares of the height between which nothing of the legend and of the viewer's bars lies."""
    legend = len(_lines(look)) * LEGEND_LINE
    if look.position is TextPosition.TOP:
        return VIEWER_BAR + legend + 0.012, LEGEND_BOTTOM
    return VIEWER_BAR, LEGEND_BOTTOM - legend - 0.008


def _draw_legend(picture: Image.Image, look: Look) -> None:
    width, height = picture.size
    size = max(13, height // 38)
    lines = _lines(look)
    top = VIEWER_BAR + 0.012 if look.position is TextPosition.TOP else LEGEND_BOTTOM - len(lines) * LEGEND_LINE
    for place, (text, color) in enumerate(lines):
        share = top + place * LEGEND_LINE
        fitting = drawing.shorten(text, size, width * 0.94)
        drawing.draw_plate(picture, (width / 2, height * share), fitting, size, color, "mt")
