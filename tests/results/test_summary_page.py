"""The summary page says all that it has room for, and of the rest how much there is and where."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dicomnode.domain.findings import Box, Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.results import ResultKind
from dicomnode.results.drawing import wrap
from dicomnode.results.pages import FOOTER_END, LEFT, NOTE, RIGHT, PageText, summary_page
from tests.results.cases import MODEL, small_series, volume_of
from tests.results.conftest import Case, make_case
from tests.results.test_captures import flat_radiograph

TEXT = PageText("AI result: chest_ct 1.0", "NOTICE", range(1, 13), "Overlays: 2 of 2 slices with findings.")
LONG = (
    "outside the model card: the kernel YC is none that the model was trained on (B3*)",
    "outside the model card: slices are 9 mm thick, the model was trained on 0.5 to 3 mm",
    "outside the model card: no contrast agent is stated, the model was trained on enhanced series",
    "outside the model card: the patient is 71 years old, the model was trained on patients of 18 to 60",
    "24 Frame of Reference UIDs",
)


class Written:
    """What a page says, each line with its place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[tuple[float, float, str]] = []
        plainly = ImageDraw.ImageDraw.text

        def text(pen: ImageDraw.ImageDraw, xy: tuple[float, float], words: str, *args: object, **more: object) -> None:
            self.lines.append((xy[0], xy[1], words))
            plainly(pen, xy, words, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)

    def page(self, image: Volume | Image2D, findings: Findings, text: PageText = TEXT) -> Image.Image:
        """A page, of which alone is listened to."""
        self.lines.clear()
        return summary_page(image, findings, text)

    @property
    def words(self) -> str:
        """All of it."""
        return re.sub(r"\s+", " ", " ".join(words for _, _, words in self.lines))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch)


def notes_on(words: str, notes: Sequence[str]) -> list[str]:
    """Those that stand there whole."""
    return [one for one in notes if f"Note: {one[:1].upper()}{one[1:]}" in words]


def assert_nothing_lies_on_anything(written: Written) -> None:
    """Lines of the page (not of its pictures) begin at the left edge; none begins before the one above has ended."""
    places = sorted({y for x, y, _ in written.lines if x == LEFT})
    assert all(below - above >= NOTE for above, below in pairwise(places))
    assert places[-1] + NOTE <= FOOTER_END + NOTE


def test_five_notes_stand_there_whole(case: Case, written: Written) -> None:
    written.page(case.volume, replace(case.findings, warnings=LONG))
    assert notes_on(written.words, LONG) == list(LONG)
    assert "more note" not in written.words
    assert_nothing_lies_on_anything(written)


@pytest.mark.parametrize("count", [10, 40])
def test_of_more_notes_than_fit_the_rest_is_counted_and_its_place_named(case: Case, written: Written, count: int) -> None:
    notes = [f"remark {number}: {'so many words ' * 10}end {number}" for number in range(count)]
    written.page(case.volume, replace(case.findings, warnings=tuple(notes)))
    shown = notes_on(written.words, notes)
    assert shown
    assert shown == notes[: len(shown)]
    assert f"{count - len(shown)} more notes: see the report, or Image Comments of this series." in written.words
    assert "Model chest_ct 1.0" in written.words
    assert_nothing_lies_on_anything(written)


def test_a_single_note_that_is_longer_than_the_page_is_named(case: Case, written: Written) -> None:
    assert len(wrap("word " * 900, NOTE, RIGHT - LEFT)) > 30
    written.page(case.volume, replace(case.findings, warnings=("word " * 900,)))
    assert "1 note: see the report" in written.words


def test_a_table_has_no_columns_in_which_nothing_stands(case: Case, written: Written) -> None:
    image, findings = flat_radiograph(512)
    written.page(image, findings, replace(TEXT, image_numbers=(7,)))
    said = [words for _, _, words in written.lines]
    assert {"Finding", "Image", "Prob.", "Opacity", "7", "70%"} <= set(said)
    assert not {"-", "Side", "Long x short mm", "Volume ml", "Mean"} & set(said)
    written.page(case.volume, case.findings)
    said = [words for _, _, words in written.lines]
    assert {"Finding", "Side", "Image", "Long x short mm", "Volume ml", "Mean HU", "Prob."} <= set(said)
    assert "-" not in said


def test_a_box_beside_lesions_leaves_its_cells_empty(case: Case, written: Written) -> None:
    box = Box("Box 1", (3, 5, 6), (6, 20, 22), 0.71)
    written.page(case.volume, replace(case.findings, boxes=(box,)))
    assert [words for _, _, words in written.lines].count("-") == 4


def test_the_side_of_a_radiograph_stands_on_the_summary_too(written: Written) -> None:
    image, findings = flat_radiograph(512)
    written.page(image, findings, replace(TEXT, image_numbers=(1,), orientation=("L", "F")))
    assert {"R", "L"} <= {words for _, _, words in written.lines}
    written.page(image, findings, replace(TEXT, image_numbers=(1,)))
    assert not {"R", "L"} & {words for _, _, words in written.lines}
    assert "does not say which side is left" in written.words


def test_what_a_model_is_meant_for_stands_there_where_it_is_no_demonstration(case: Case, written: Written) -> None:
    model = replace(MODEL, demonstration=False, intended_use="Second reader of chest CT in adults")
    written.page(case.volume, replace(case.findings, model=model))
    assert "Intended use: Second reader of chest CT in adults" in written.words
    written.page(case.volume, case.findings)
    assert "Intended use" not in written.words


def test_pictures_give_way_to_words_but_stay_large_enough(case: Case, written: Written) -> None:
    few = np.asarray(written.page(case.volume, case.findings))
    many = np.asarray(written.page(case.volume, replace(case.findings, warnings=LONG * 4)))
    heights = []
    for page in (few, many):
        column = page[290:900, LEFT + 100]
        ground = (column == page[0, 0]).all(axis=1)
        heights.append(int(np.argmax(ground[150:])) + 150)
    assert heights[0] > heights[1] >= 200


def test_the_series_that_was_read_is_named_by_its_number(tmp_path: Path, written: Written) -> None:
    paths = small_series(tmp_path / "ct", SeriesNumber=7)
    make_case(paths, None, volume_of(paths), tmp_path / "results", kinds=(ResultKind.SC,))
    assert "Series 7, 12 slices. Overlays:" in written.words
    assert "series 7, image" in written.words
    paths = small_series(tmp_path / "none", SeriesNumber=None)
    made = make_case(paths, None, volume_of(paths), tmp_path / "none-results", kinds=(ResultKind.SC,))
    assert made.objects
    assert "12 slices. Overlays:" in written.words
