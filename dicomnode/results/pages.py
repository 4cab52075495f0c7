"""Pages without a source slice as their ground: the summary that comes first, and "AI not run"."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dicomnode.domain.findings import Box, Findings, Lesion, Segment
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results import drawing
from dicomnode.results.drawing import AMBER, BLACK, GREY, WHITE
from dicomnode.results.fonts import font_for
from dicomnode.results.outlines import HOT, key_slice, key_slices_of
from dicomnode.results.slices import Look, centre_in_picture, draw_sides, sides_shown, slice_picture, stack_of
from dicomnode.results.wording import capitalized, percent

SIDE = 1024
LEFT, RIGHT = 56, SIDE - 56
TOP = 116  # below the tenth that viewers cover
GROUND = (14, 17, 22)
RED = (232, 84, 84)
LARGE, MIDDLE, SMALL = 38, 28, 23
THUMBNAIL, LARGE_THUMBNAIL = 292, 390
SMALLEST_THUMBNAIL = 216  # below that a small nodule is no longer seen
CAPTION = 46
MARGIN = 0.04
NOTHING = "-"  # in a cell of the table
MOST_ROWS, ROW_STEP, HEADING_STEP = 5, SMALL + 8, SMALL + 20
MOST_ORGAN_LINES = 4  # for which the pictures give way
NOTE, NOTE_STEP = 20, 26
FOOTER_END = 958  # above the window and the image number that viewers write into the corners
COLUMNS = (  # of the table, with their widths
    ("Finding", 192), ("Side", 88), ("{image}", 86), ("Long x short mm", 206), ("Volume ml", 128), ("{mean}", 118),
    ("Prob.", 90),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says that the findings do not hold.

    image_numbers: the number of each slice, by slice index; `called` says what kind of number that is ("image" for the
    Instance Number that viewers show, "slice" for the place in the volume). orientation: Patient Orientation (0020,0020) of a
    projection image.
    """

    title: str
    notice: str
    image_numbers: Sequence[int]
    overlays: str = ""
    identity: str = ""
    called: str = "image"
    orientation: tuple[str, ...] = ()


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
    footer = _footer_lines(image, findings, text)
    bottom = FOOTER_END - len(footer) * NOTE_STEP
    _key_pictures(page, image, findings, text, _picture_side(bottom - page.y, image, findings))
    if findings.lesions or findings.boxes:
        _table(page, image, findings, text)
    _organs(page, image, findings, bottom)
    _notes(page, findings.warnings, bottom)
    page.y = max(page.y, bottom)
    for line in footer:
        page.line(line, NOTE, GREY, gap=NOTE_STEP - NOTE)
    return page.picture


def _picture_side(room: int, image: Volume | Image2D, findings: Findings) -> int:
    """In pixels: as large as the table, the segments and the notes leave room for."""
    found = len(findings.lesions) + len(findings.boxes)
    table = HEADING_STEP + (min(found, MOST_ROWS) + (found > MOST_ROWS)) * ROW_STEP + 6 if found else 0
    organs = min(len(_organ_lines(image, findings)), MOST_ORGAN_LINES) * ROW_STEP
    notes = sum(map(len, _wrapped(findings.warnings))) * NOTE_STEP
    widest = THUMBNAIL if len(findings.lesions) > 2 else LARGE_THUMBNAIL
    return min(widest, max(SMALLEST_THUMBNAIL, room - CAPTION - table - organs - notes))


def _key_pictures(page: Page, image: Volume | Image2D, findings: Findings, text: PageText, side: int) -> None:
    """Up to three slices, of the most probable lesions; of a single lesion the slice and its surroundings enlarged."""
    lesions = sorted(findings.lesions, key=lambda one: -one.probability)[:3]
    shown: list[tuple[Image.Image, str]] = []
    for lesion in lesions:
        index = key_slice(findings, lesion)
        picture = _thumbnail(image, findings, index, side, text.orientation)
        shown.append((picture, f"{text.called} {text.image_numbers[index]}: {lesion.label}"))
    if len(lesions) == 1:
        shown.append((_enlarged(image, findings, lesions[0], side), f"{lesions[0].label}, enlarged"))
    if not lesions:
        slices = len(stack_of(image))
        shown += [
            (_thumbnail(image, findings, index, side, text.orientation), f"{text.called} {text.image_numbers[index]}")
            for index in key_slices_of(findings, slices)[:2] or [slices // 2]
        ]
    left = LEFT
    for picture, caption in shown:
        page.picture.paste(picture, (left, page.y))
        drawing.draw_text(page.picture, (left, page.y + side + 6), drawing.shorten(caption, SMALL, side), SMALL, GREY)
        left += side + 18
    page.y += side + CAPTION


def _thumbnail(image: Volume | Image2D, findings: Findings, index: int, side: int, orientation: tuple[str, ...]) -> Image.Image:
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
    if sides := sides_shown(image, orientation):
        draw_sides(square, *sides)
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
    """Most probable first; a column in which nothing would stand is left out."""
    ranked: list[Lesion | Box] = sorted([*findings.lesions, *findings.boxes], key=lambda one: -one.probability)
    rows = [_row(image, findings, row, text) for row in ranked[:MOST_ROWS]]
    mean = "Mean HU" if isinstance(image, Volume) and image.unit == "[hnsf'U]" else "Mean"
    left, columns = LEFT, []
    for column, (name, width) in enumerate(COLUMNS):
        if any(row[column] != NOTHING for row in rows):
            columns.append((column, left))
            said = name.format(image=text.called.capitalize(), mean=mean)
            drawing.draw_text(page.picture, (left, page.y), said, SMALL, GREY)
            left += width
    page.y += SMALL + 10
    page.rule()
    for row in rows:
        for column, place in columns:
            drawing.draw_text(page.picture, (place, page.y), row[column], SMALL)
        page.y += ROW_STEP
    if len(ranked) > MOST_ROWS:
        page.line(f"{MOST_ROWS} of {len(ranked)} findings shown; all are in the structured report.", SMALL, AMBER, gap=8)
    page.y += 6


def _row(image: Volume | Image2D, findings: Findings, found: Lesion | Box, text: PageText) -> tuple[str, ...]:
    """The cells of one finding; a box has no axes, a projection no volume, and one of unknown spacing no millimetres."""
    label, probability = drawing.shorten(found.label, SMALL, COLUMNS[0][1] - 10), percent(found.probability)
    if isinstance(found, Box):
        middle = (found.start[0] + found.stop[0] - 1) // 2
        return label, NOTHING, str(text.image_numbers[middle]), NOTHING, NOTHING, NOTHING, probability
    measured = isinstance(image, Volume) or image.pixel_spacing_mm is not None
    return (
        label,
        found.laterality or NOTHING,
        str(text.image_numbers[key_slice(findings, found)]),
        f"{found.long_axis_mm:.1f} x {found.short_axis_mm:.1f}" if measured else NOTHING,
        f"{found.volume_ml:.2f}" if isinstance(image, Volume) else NOTHING,
        f"{found.mean:.0f}",
        probability,
    )


def _organ_lines(image: Volume | Image2D, findings: Findings) -> list[list[tuple[float, str, Segment]]]:
    """The segments that are no lesion's, line by line: (place from the left, name with volume, segment)."""
    lesions = {lesion.segment for lesion in findings.lesions}
    lines: list[list[tuple[float, str, Segment]]] = []
    left = float(RIGHT)
    for one in findings.label_maps:
        for segment in one.segments:
            if (one.name, segment.number) in lesions or not segment.voxels:
                continue
            name = f"{segment.label} {segment.volume_ml:.0f} ml" if isinstance(image, Volume) else segment.label
            width = 22 + drawing.text_size(name, SMALL)[0] + 30
            if left + width > RIGHT:
                left = float(LEFT)
                lines.append([])
            lines[-1].append((left, name, segment))
            left += width
    return lines


def _organs(page: Page, image: Volume | Image2D, findings: Findings, bottom: int) -> None:
    """Volumes of the other segments, each beside the colour of its contour, as many as the page holds above `bottom`."""
    lines = _organ_lines(image, findings)
    fit = max(0, (bottom - page.y) // ROW_STEP)
    shown = lines if len(lines) <= fit else lines[: max(0, fit - 1)]
    for line in shown:
        for left, name, segment in line:
            color = drawing.visible(segment.color_rgb)
            ImageDraw.Draw(page.picture).rectangle((left, page.y + 6, left + 14, page.y + 20), fill=color)
            drawing.draw_text(page.picture, (left + 22, page.y), name, SMALL)
        page.y += ROW_STEP
    if len(shown) < len(lines):
        count, total = (sum(map(len, some)) for some in (shown, lines))
        page.line(f"{count} of {total} segments shown; all are in the segmentation.", SMALL, AMBER, gap=8)


def _wrapped(warnings: Sequence[str]) -> list[list[str]]:
    return [drawing.wrap(f"Note: {capitalized(one)}", NOTE, RIGHT - LEFT) for one in warnings]


def _notes(page: Page, warnings: Sequence[str], bottom: int) -> None:
    """Whole notes above `bottom`, at least one line; how many more there are, and where they stand, is said."""
    notes = _wrapped(warnings)
    fit = max(1, (bottom - page.y) // NOTE_STEP)
    shown: list[list[str]] = []
    for note in notes:
        lines = sum(map(len, shown)) + len(note)
        if lines + (len(shown) + 1 < len(notes)) > fit:
            break
        shown.append(note)
    for line in (line for note in shown for line in note):
        page.line(line, NOTE, AMBER, gap=NOTE_STEP - NOTE)
    if left := len(notes) - len(shown):
        more = f"{left} more note{'s' * (left > 1)}" if shown else f"{left} note{'s' * (left > 1)}"
        page.line(f"{more}: see the report, or Image Comments of this series.", NOTE, AMBER, gap=NOTE_STEP - NOTE)


def _footer_lines(image: Volume | Image2D, findings: Findings, text: PageText) -> list[str]:
    """What was drawn, who spoke, and for what it is meant where the notice above does not say that it is for nothing."""
    model = findings.model
    maker = f", {model.manufacturer}" if model.manufacturer else ""
    lines = [text.overlays] if text.overlays else []
    if sides_shown(image, text.orientation) is None:
        lines.append("The image does not say which side is left: no R and L are drawn.")
    lines.append(f"Model {model.name} {model.version}, weights {model.digest[:12]}{maker}")
    if model.intended_use and not model.demonstration:
        lines.append(f"Intended use: {model.intended_use}")
    return lines


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
