"""Text, curves and colours on pictures.

Curves are drawn at three times the size and averaged down: thin, crisp, without steps.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicomnode.results.fonts import font_for

type_rgb = tuple[int, int, int]

WHITE: type_rgb = (240, 240, 240)
GREY: type_rgb = (175, 180, 188)
AMBER: type_rgb = (255, 196, 64)
BLACK: type_rgb = (0, 0, 0)
SUPERSAMPLING = 3


DARKEST = 120  # luminance of the darkest colour that still shows on lung


def visible(color: type_rgb) -> type_rgb:
    """The colour, lightened as far as a thin line on a dark image needs."""
    red, green, blue = color
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    if luminance >= DARKEST:
        return color
    share = (DARKEST - luminance) / (255 - luminance)
    return (round(red + share * (255 - red)), round(green + share * (255 - green)), round(blue + share * (255 - blue)))


class Rectangle(NamedTuple):
    """Left, top, right, bottom in picture pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Rectangle") -> bool:
        """Whether the two share a point."""
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom


def text_size(text: str, size: int) -> tuple[float, float]:
    """(width, height) of one line."""
    left, top, right, bottom = font_for(text, size).getbbox(text)
    return right - left, bottom - top


def draw_text(
    picture: Image.Image, place: tuple[float, float], text: str, size: int, color: type_rgb = WHITE, anchor: str = "la"
) -> None:
    """One line with a dark rim, readable on bone as on air. `anchor` as in Pillow."""
    pen = ImageDraw.Draw(picture)
    pen.text(place, text, color, font_for(text, size), anchor=anchor, stroke_width=max(1, size // 10), stroke_fill=BLACK)


def draw_plate(picture: Image.Image, place: tuple[float, float], text: str, size: int, color: type_rgb, anchor: str) -> None:
    """One line on a dark, half transparent plate: small coloured letters stay crisp on any tissue."""
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = pen.textbbox(place, text, font_for(text, size), anchor=anchor)
    margin = size * 0.25
    corner = (round(left - margin), round(top - margin))
    under = picture.crop((*corner, round(right + margin), round(bottom + margin)))
    picture.paste(Image.blend(under, Image.new("RGB", under.size), 0.65), corner)
    pen.text(place, text, color, font_for(text, size), anchor=anchor)


def wrap(text: str, size: int, width: float) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_size(longer, size)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shorten(text: str, size: int, width: float) -> str:
    """The text, or as much of it as fits, with three dots."""
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(f"{text}...", size)[0] > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


class Curve(NamedTuple):
    """A curve in picture pixels, (n, 2) as (x, y)."""

    points: NDArray[np.float64]
    color: type_rgb
    width: float


def draw_curves(picture: Image.Image, curves: Iterable[Curve]) -> None:
    """Curves with smooth edges, in place; only the part of the picture that they touch is drawn anew."""
    for curve in curves:
        margin = curve.width + 2
        left, top = np.floor(curve.points.min(axis=0) - margin).astype(int).clip(0)
        right, bottom = np.ceil(curve.points.max(axis=0) + margin).astype(int).clip(0, picture.size)
        if right <= left or bottom <= top:
            continue
        size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
        stencil = Image.new("L", size)
        points = [(float(x), float(y)) for x, y in (curve.points - (left, top)) * SUPERSAMPLING]
        ImageDraw.Draw(stencil).line(points, fill=255, width=max(1, round(curve.width * SUPERSAMPLING)), joint="curve")
        picture.paste(curve.color, (int(left), int(top)), stencil.reduce(SUPERSAMPLING))


# Black-body colours, dark to light: monotone in brightness, so the order of values also shows in grey.
_HEAT_STOPS = np.array([[0, 0, 0], [96, 0, 64], [208, 24, 16], [255, 140, 0], [255, 240, 120]], np.float64)


@cache
def heat_colors() -> NDArray[np.uint8]:
    """(256, 3) RGB for heat-map values 0 to 255."""
    at = np.linspace(0, 255, len(_HEAT_STOPS))
    table = np.stack([np.interp(np.arange(256), at, _HEAT_STOPS[:, channel]) for channel in range(3)], axis=1)
    return table.round().astype(np.uint8)


def blend_heat(picture: Image.Image, values: NDArray[np.uint8]) -> Image.Image:
    """The picture with a heat map over it: the hotter, the less of the picture shows through; cold is left as it is."""
    heat = Image.fromarray(heat_colors()[values])
    opacity = Image.fromarray((np.clip(values.astype(np.float32) - 25, 0, None) * (120 / 230)).astype(np.uint8))
    if heat.size != picture.size:
        heat = heat.resize(picture.size, Image.Resampling.BILINEAR)
        opacity = opacity.resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(heat, picture, opacity)


def draw_color_bar(picture: Image.Image, name: str, lowest: float, highest: float) -> None:
    """The heat map's scale on the right, between the viewer's corners."""
    width, height = picture.size
    size = max(11, height // 42)
    bar_width, bar_height = max(10, width // 45), height * 2 // 7
    left, top = width - bar_width - max(40, width // 11), height * 3 // 14
    ramp = Image.fromarray(heat_colors()[::-1][:, None, :]).resize((bar_width, bar_height))
    picture.paste(ramp, (left, top))
    ImageDraw.Draw(picture).rectangle((left - 1, top - 1, left + bar_width, top + bar_height), outline=GREY)
    gap = size * 0.4
    draw_text(picture, (left + bar_width + gap, top), f"{highest:.3g}", size, anchor="lt")
    draw_text(picture, (left + bar_width + gap, top + bar_height), f"{lowest:.3g}", size, anchor="lb")
    draw_text(picture, (left + bar_width, top - gap), name, size, GREY, "rb")
