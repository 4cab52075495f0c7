"""Pages without a source slice as their ground: the summary that comes first, and "AI not run"."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from dicomnode.domain.findings import Findings, Lesion
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results import drawing
from dicomnode.results.drawing import AMBER, BLACK, GREY, WHITE
from dicomnode.results.outlines import key_slice
from dicomnode.results.slices import Look, centre_in_picture, slice_picture, stack_of

SIDE = 1024
LEFT, RIGHT = 56, SIDE - 56
TOP = 116  # below the tenth that viewers cover
GROUND = (14, 17, 22)
RED = (232, 84, 84)
LARGE, MIDDLE, SMALL = 38, 28, 23
THUMBNAIL = 292
MOST_ROWS = 5
COLUMNS = (("Finding", 0), ("Side", 206), ("Image", 300), ("Long x short mm", 390), ("ml", 600), ("Mean", 690), ("Prob.", 800))


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says that the findings do not hold. `image_numbers`: what a viewer calls each slice, by slice index."""

    title: str
    notice: str
    image_numbers: Sequence[int]
    overlays: str = ""


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
        ImageDraw.Draw(self.picture).text((SIDE / 2, self.y + 23), text, BLACK, drawing.font(MIDDLE), anchor="mm")
        self.y += 62

    def rule(self) -> None:
        """A thin line."""
        ImageDraw.Draw(self.picture).line((LEFT, self.y, RIGHT, self.y), fill=(70, 76, 86))
        self.y += 10


def summary_page(image: Volume | Image2D, findings: Findings, text: PageText) -> Image.Image:
    """Model, intended use, statements, key slices, table of findings."""
    page = Page()
    page.line(text.title, LARGE, gap=16)
    page.banner(text.notice)
    for one in findings.classifications[:2]:
        present = one.probability >= one.threshold
        statement = f"{one.name}: {one.value}   probability {one.probability:.0%} (threshold {one.threshold:.0%})"
        page.line(statement, MIDDLE, RED if present else WHITE)
    if not findings.lesions:
        page.line("No lesion reported.", MIDDLE)
    page.y = max(page.y + 4, 290)
    _key_pictures(page, image, findings, text)
    if findings.lesions:
        _table(page, findings.lesions, findings, text)
    _organs(page, findings)
    for warning in findings.warnings[:2]:
        page.line(f"Note: {warning}", SMALL, AMBER, gap=6)
    _footer(page, findings, text)
    return page.picture


def _key_pictures(page: Page, image: Volume | Image2D, findings: Findings, text: PageText) -> None:
    """Up to three slices, of the most probable lesions; of a single lesion the slice and its surroundings enlarged."""
    look = Look(names=False, shortest_side=2 * THUMBNAIL)
    lesions = sorted(findings.lesions, key=lambda one: -one.probability)[:3]
    shown: list[tuple[Image.Image, str]] = []
    for lesion in lesions:
        index = key_slice(findings, lesion)
        shown.append((slice_picture(image, findings, index, look), f"image {text.image_numbers[index]}: {lesion.label}"))
    if len(lesions) == 1:
        shown.append((_enlarged(image, findings, lesions[0]), f"{lesions[0].label}, enlarged"))
    if not lesions:
        index = len(stack_of(image)) // 2
        shown.append((slice_picture(image, findings, index, look), f"image {text.image_numbers[index]}"))
    left = LEFT
    for picture, caption in shown:
        thumbnail = picture.copy()
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        page.picture.paste(thumbnail, (left, page.y))
        fitting = drawing.shorten(caption, SMALL, THUMBNAIL)
        drawing.draw_text(page.picture, (left, page.y + THUMBNAIL + 6), fitting, SMALL, GREY)
        left += THUMBNAIL + 18
    page.y += THUMBNAIL + 46


def _enlarged(image: Volume | Image2D, findings: Findings, lesion: Lesion) -> Image.Image:
    """A square of about six lesions' width around the lesion, at least 50 mm."""
    look = Look(names=False, sides=False, shortest_side=2048)
    index = key_slice(findings, lesion)
    picture = slice_picture(image, findings, index, look)
    (x, y), pixels_per_mm = centre_in_picture(image, findings, lesion, picture.size)
    half = min(max(25.0, 1.5 * lesion.long_axis_mm) * pixels_per_mm, min(picture.size) / 2)
    left = min(max(x - half, 0), picture.width - 2 * half)
    top = min(max(y - half, 0), picture.height - 2 * half)
    return picture.crop((int(left), int(top), int(left + 2 * half), int(top + 2 * half)))


def _table(page: Page, lesions: Sequence[Lesion], findings: Findings, text: PageText) -> None:
    for name, offset in COLUMNS:
        drawing.draw_text(page.picture, (LEFT + offset, page.y), name, SMALL, GREY)
    page.y += SMALL + 10
    page.rule()
    ranked = sorted(lesions, key=lambda one: -one.probability)
    for lesion in ranked[:MOST_ROWS]:
        cells = (
            drawing.shorten(lesion.label, SMALL, 196),
            lesion.laterality or "-",
            str(text.image_numbers[key_slice(findings, lesion)]),
            f"{lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f}",
            f"{lesion.volume_ml:.2f}",
            f"{lesion.mean:.0f}",
            f"{lesion.probability:.0%}",
        )
        for (_, offset), cell in zip(COLUMNS, cells, strict=True):
            drawing.draw_text(page.picture, (LEFT + offset, page.y), cell, SMALL)
        page.y += SMALL + 8
    if len(lesions) > MOST_ROWS:
        page.line(f"{MOST_ROWS} of {len(lesions)} findings shown; all are in the structured report.", SMALL, AMBER, gap=6)
    page.y += 6


def _organs(page: Page, findings: Findings) -> None:
    lesions = {lesion.segment for lesion in findings.lesions}
    volumes = [
        f"{segment.label} {segment.volume_ml:.0f} ml"
        for one in findings.label_maps
        for segment in one.segments
        if (one.name, segment.number) not in lesions and segment.voxels
    ]
    if volumes:
        page.line("   ".join(volumes), SMALL, gap=6)


def _footer(page: Page, findings: Findings, text: PageText) -> None:
    page.y = max(page.y, 930)
    model = findings.model
    maker = f", {model.manufacturer}" if model.manufacturer else ""
    page.line(
        f"Model {model.name} {model.version}, weights {model.digest[:12]}{maker}. {text.overlays}".strip(), 20, GREY, gap=6
    )


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
