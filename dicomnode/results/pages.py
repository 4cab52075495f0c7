"""Pages without a source slice as their ground: the summary that comes first, and "AI not run"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dicomnode.domain.findings import Box, Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results import drawing
from dicomnode.results.drawing import AMBER, BLACK, GREY, WHITE
from dicomnode.results.fonts import font_for
from dicomnode.results.outlines import HOT, key_slice, key_slices_of
from dicomnode.results.slices import Look, centre_in_picture, draw_sides, sides_of, slice_picture, stack_of
from dicomnode.results.wording import capitalized, percent

SIDE = 1024
LEFT, RIGHT = 56, SIDE - 56
TOP = 116  # below the tenth that viewers cover
GROUND = (14, 17, 22)
RED = (232, 84, 84)
LARGE, MIDDLE, SMALL = 38, 28, 23
THUMBNAIL, LARGE_THUMBNAIL = 292, 390
MARGIN = 0.04
LOWEST_ORGAN, LOWEST_WARNING = 880, 890
MOST_ROWS = 5
FOOTER = 906  # its two lines end above the window and the image number that viewers write into the corners
COLUMN_PLACES = (0, 206, 300, 390, 600, 690, 810)


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says that the findings do not hold.

    image_numbers: the number of each slice, by slice index; `called` says what kind of number that is ("image" for the
    Instance Number that viewers show, "slice" for the place in the volume).
    """

    title: str
    notice: str
    image_numbers: Sequence[int]
    overlays: str = ""
    identity: str = ""
    called: str = "image"


class Page:
    """A dark page that is written from top to bottom; `y` is where the next line goes."""

    def __init__(self) -> None:
        self.picture = Image.new("RGB", (SIDE, SIDE), GROUND)
        self.y = TOP

    def line(self, text: str, size: int = SMALL, color: drawing.type_rgb = WHITE, gap: int = 10) -> None:
        """One line, shortened to fit."""
        fitting = drawing.shorten(text, size, RIGHT - LEFT)
        drawing.draw_text(self.picture, (LEFT, self.y), fitting, size, color)
        self.y += size + gap

    def paragraph(self, text: str, size: int = SMALL, color: drawing.type_rgb = WHITE, most: int = 6) -> None:
        """Lines broken at spaces, `most` of them at most."""
        lines = drawing.wrap(text, size, RIGHT - LEFT)
        for number, one in enumerate(lines[:most], start=1):
            self.line(f"{one} ..." if number == most < len(lines) else one, size, color, gap=8)

    def banner(self, text: str) -> None:
        """The intended use, black on amber, over the whole width."""
        ImageDraw.Draw(self.picture).rectangle((LEFT, self.y, RIGHT, self.y + 46), fill=AMBER)
        ImageDraw.Draw(self.picture).text((SIDE / 2, self.y + 23), text, BLACK, font_for(text, MIDDLE), anchor="mm")
        self.y += 62

    def rule(self) -> None:
        """A thin line."""
        ImageDraw.Draw(self.picture).line((LEFT, self.y, RIGHT, self.y), fill=(70, 76, 86))
        self.y += 10


def summary_page(image: Volume | Image2D, findings: Findings, text: PageText) -> Image.Image:
    """Model, intended use, statements, key slices, table of findings."""
    page = Page()
    page.line(text.title, LARGE, gap=10 if text.identity else 16)
    if text.identity:
        page.line(text.identity, SMALL, gap=12)
    page.banner(text.notice)
    for one in findings.classifications[:2]:
        present = one.probability >= one.threshold
        certainty = f"probability {percent(one.probability)} (threshold {percent(one.threshold)})"
        statement = f"{capitalized(one.name)}: {one.value}   {certainty}"
        page.line(statement, MIDDLE, RED if present else WHITE)
    if findings.lesions_sought and not findings.lesions:
        page.line("No lesion reported.", MIDDLE)
    page.y = max(page.y + 4, 290)
    _key_pictures(page, image, findings, text)
    if findings.lesions or findings.boxes:
        _table(page, image, findings, text)
    _organs(page, image, findings)
    for warning in findings.warnings[: 2 if page.y < LOWEST_WARNING else 1]:
        page.paragraph(f"Note: {capitalized(warning)}", SMALL, AMBER, most=2 if page.y < LOWEST_WARNING - SMALL else 1)
    _footer(page, findings, text)
    return page.picture


def _key_pictures(page: Page, image: Volume | Image2D, findings: Findings, text: PageText) -> None:
    """Up to three slices, of the most probable lesions; of a single lesion the slice and its surroundings enlarged."""
    lesions = sorted(findings.lesions, key=lambda one: -one.probability)[:3]
    side = THUMBNAIL if len(lesions) > 2 else LARGE_THUMBNAIL
    shown: list[tuple[Image.Image, str]] = []
    for lesion in lesions:
        index = key_slice(findings, lesion)
        shown.append((_thumbnail(image, findings, index, side), f"{text.called} {text.image_numbers[index]}: {lesion.label}"))
    if len(lesions) == 1:
        shown.append((_enlarged(image, findings, lesions[0], side), f"{lesions[0].label}, enlarged"))
    if not lesions:
        slices = len(stack_of(image))
        shown += [
            (_thumbnail(image, findings, index, side), f"{text.called} {text.image_numbers[index]}")
            for index in key_slices_of(findings, slices)[:2] or [slices // 2]
        ]
    left = LEFT
    for picture, caption in shown:
        page.picture.paste(picture, (left, page.y))
        drawing.draw_text(page.picture, (left, page.y + side + 6), drawing.shorten(caption, SMALL, side), SMALL, GREY)
        left += side + 18
    page.y += side + 46


def _thumbnail(image: Volume | Image2D, findings: Findings, index: int, side: int) -> Image.Image:
    """The slice, cut to what was segmented anywhere in the volume, in a square of `side` pixels."""
    rows, columns = stack_of(image).shape[1:]
    box = _segmented(image, findings, rows, columns)
    width, height = box.right - box.left, box.bottom - box.top
    enlargement = side / max(width * columns, height * rows) * min(rows, columns)
    look = Look(names=False, shortest_side=min(round(enlargement), 2048), sides=False)
    picture = slice_picture(image, findings, index, look)
    corners = (box.left * picture.width, box.top * picture.height, box.right * picture.width, box.bottom * picture.height)
    cut = picture.crop((round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3])))
    cut.thumbnail((side, side), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    if isinstance(image, Volume):
        draw_sides(square, *sides_of(image.affine))
    return square


def _segmented(image: Volume | Image2D, findings: Findings, rows: int, columns: int) -> drawing.Rectangle:
    """Shares (0 to 1) of the image that hold all findings, with a margin; the whole of a projection and without segments."""
    shows = np.zeros((rows, columns), bool)
    for one in findings.label_maps:
        shows |= one.labels.any(axis=0)
    for box in findings.boxes:
        shows[box.start[1] : box.stop[1], box.start[2] : box.stop[2]] = True
    for heat_map in findings.heatmaps:
        shows |= heat_map.values.max(axis=0) >= HOT
    if isinstance(image, Image2D) or not shows.any():
        return drawing.Rectangle(0, 0, 1, 1)
    down, across = np.flatnonzero(shows.any(axis=1)), np.flatnonzero(shows.any(axis=0))
    return drawing.Rectangle(
        max(0.0, across[0] / columns - MARGIN),
        max(0.0, down[0] / rows - MARGIN),
        min(1.0, (across[-1] + 1) / columns + MARGIN),
        min(1.0, (down[-1] + 1) / rows + MARGIN),
    )


def _enlarged(image: Volume | Image2D, findings: Findings, lesion: Lesion, side: int) -> Image.Image:
    """A square of three lesions' width around the lesion, at least 50 mm."""
    picture = slice_picture(image, findings, key_slice(findings, lesion), Look(names=False, sides=False, shortest_side=2048))
    (x, y), pixels_per_mm = centre_in_picture(image, findings, lesion, picture.size)
    half = min(max(25.0, 1.5 * lesion.long_axis_mm) * pixels_per_mm, min(picture.size) / 2)
    left = min(max(x - half, 0), picture.width - 2 * half)
    top = min(max(y - half, 0), picture.height - 2 * half)
    cut = picture.crop((int(left), int(top), int(left + 2 * half), int(top + 2 * half)))
    return cut.resize((side, side), Image.Resampling.LANCZOS)


def _table(page: Page, image: Volume | Image2D, findings: Findings, text: PageText) -> None:
    mean = "Mean HU" if isinstance(image, Volume) and image.unit == "[hnsf'U]" else "Mean"
    names = ("Finding", "Side", text.called.capitalize(), "Long x short mm", "ml", mean, "Prob.")
    for name, offset in zip(names, COLUMN_PLACES, strict=True):
        drawing.draw_text(page.picture, (LEFT + offset, page.y), name, SMALL, GREY)
    page.y += SMALL + 10
    page.rule()
    rows: list[Lesion | Box] = sorted([*findings.lesions, *findings.boxes], key=lambda one: -one.probability)
    for row in rows[:MOST_ROWS]:
        for offset, cell in zip(COLUMN_PLACES, _row(image, findings, row, text), strict=True):
            drawing.draw_text(page.picture, (LEFT + offset, page.y), cell, SMALL)
        page.y += SMALL + 8
    if len(rows) > MOST_ROWS:
        page.line(f"{MOST_ROWS} of {len(rows)} findings shown; all are in the structured report.", SMALL, AMBER, gap=6)
    page.y += 6


def _row(image: Volume | Image2D, findings: Findings, found: Lesion | Box, text: PageText) -> tuple[str, ...]:
    """The cells of one finding; a box has no axes, a projection no volume, and one of unknown spacing no millimetres."""
    label, probability = drawing.shorten(found.label, SMALL, 196), percent(found.probability)
    if isinstance(found, Box):
        middle = (found.start[0] + found.stop[0] - 1) // 2
        return label, "-", str(text.image_numbers[middle]), "-", "-", "-", probability
    measured = isinstance(image, Volume) or image.pixel_spacing_mm is not None
    return (
        label,
        found.laterality or "-",
        str(text.image_numbers[key_slice(findings, found)]),
        f"{found.long_axis_mm:.1f} x {found.short_axis_mm:.1f}" if measured else "-",
        f"{found.volume_ml:.2f}" if isinstance(image, Volume) else "-",
        f"{found.mean:.0f}",
        probability,
    )


def _organs(page: Page, image: Volume | Image2D, findings: Findings) -> None:
    """Volumes of the other segments, each beside the colour of its contour, as many as the page holds."""
    lesions = {lesion.segment for lesion in findings.lesions}
    organs = [
        segment
        for one in findings.label_maps
        for segment in one.segments
        if (one.name, segment.number) not in lesions and segment.voxels
    ]
    left = float(LEFT)
    for shown, segment in enumerate(organs):
        name = f"{segment.label} {segment.volume_ml:.0f} ml" if isinstance(image, Volume) else segment.label
        width = 22 + drawing.text_size(name, SMALL)[0] + 30
        if left > LEFT and left + width > RIGHT:
            left = float(LEFT)
            page.y += SMALL + 8
        if page.y > LOWEST_ORGAN:
            page.line(f"{shown} of {len(organs)} segments shown; all are in the segmentation.", SMALL, AMBER, gap=6)
            return
        ImageDraw.Draw(page.picture).rectangle(
            (left, page.y + 6, left + 14, page.y + 20), fill=drawing.visible(segment.color_rgb)
        )
        drawing.draw_text(page.picture, (left + 22, page.y), name, SMALL)
        left += width
    if left > LEFT:
        page.y += SMALL + 8


def _footer(page: Page, findings: Findings, text: PageText) -> None:
    page.y = max(page.y, FOOTER)
    model = findings.model
    maker = f", {model.manufacturer}" if model.manufacturer else ""
    if text.overlays:
        page.line(text.overlays, 20, GREY, gap=6)
    page.line(f"Model {model.name} {model.version}, weights {model.digest[:12]}{maker}", 20, GREY, gap=6)


def not_run_page(title: str, reason: str, remedy: str, notice: str) -> Image.Image:
    """One page that cannot be read as "nothing found"."""
    page = Page()
    page.line("AI NOT RUN", 64, RED, gap=20)
    page.line(title, MIDDLE, gap=18)
    page.paragraph("This is not a negative result: the images were not analysed by AI.", MIDDLE, AMBER)
    page.y += 24
    page.line("Why", SMALL, GREY)
    page.paragraph(reason, MIDDLE)
    page.y += 24
    page.line("What can be done", SMALL, GREY)
    page.paragraph(remedy, MIDDLE)
    page.y = max(page.y + 30, 860)
    page.banner(notice)
    return page.picture
