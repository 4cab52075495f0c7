"""Letters for pictures: Pillow's own font for ours, a system font for names in other scripts.

Pillow's font draws Latin and is the same on every machine. Patients' names need Greek, Cyrillic and CJK too; 19 MB of font are
not carried along for the few routes that ask for names, so it comes from the system.
"""

from functools import cache
from pathlib import Path

from PIL import ImageFont

from dicomnode.domain.errors import ResultCheckFailed

# Each of them holds Latin, Greek, Cyrillic and CJK in one file (Debian's fonts-noto-cjk, Fedora's google-noto-sans-cjk-fonts).
SYSTEM_FONTS = (
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc"),
)
REMEDY = "apt-get install --no-install-recommends fonts-noto-cjk, or take draw_identity from the route"
NOWHERE = "\U0010fffe"  # a code point that is no character: what a font draws for what it lacks


@cache
def own_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own."""
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType; install a Pillow wheel")
    return loaded


@cache
def system_font(size: int) -> ImageFont.FreeTypeFont | None:
    """The first of the system's fonts that is there."""
    found = next((path for path in SYSTEM_FONTS if path.is_file()), None)
    return None if found is None else ImageFont.truetype(found, size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font for a line: Pillow's own as far as it has the letters."""
    if text.isascii():
        return own_font(size)
    return system_font(size) or own_font(size)


def ensure_drawable(text: str) -> None:
    """Raises ResultCheckFailed where a letter of the text would come out as an empty box: no name may be drawn wrong."""
    font = font_for(text, 16)
    missing = _drawn(font, NOWHERE)
    lacking = {letter for letter in text if not letter.isspace() and _drawn(font, letter) == missing}
    if lacking:
        raise ResultCheckFailed(f"{len(lacking)} letters of the patient's name cannot be drawn on captures", REMEDY)


def _drawn(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
