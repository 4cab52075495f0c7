"""Captures show what was found, in the source's window, with its sides, and nobody's name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomnode.domain.findings import Box, Findings
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Image2D, SpacingOrigin
from dicomnode.domain.profiles import DEFAULT_KINDS, Profile, ResultKind, ScForm, TextPosition
from dicomnode.results import picture, save_pictures
from dicomnode.results.drawing import AMBER, text_size
from dicomnode.results.pictures import slices_to_show, slices_with_findings
from dicomnode.results.slices import Look, sides_of, slice_picture, window_of, windowed
from tests.results.cases import MODEL, ball, findings_of, request_for, small_findings, small_series, volume_of, with_everything
from tests.results.conftest import Case, make_case


def test_the_summary_comes_first_and_then_one_capture_for_each_slice_with_a_nodule(case: Case) -> None:
    captures = case.of_kind(ResultKind.SC)
    nodules = case.findings.label_maps[1].labels
    assert len(captures) == 1 + int((nodules > 0).any(axis=(1, 2)).sum())
    assert [int(one.InstanceNumber) for one in captures] == list(range(1, len(captures) + 1))
    assert len({one.SeriesInstanceUID for one in captures}) == 1
    assert len({one.SOPInstanceUID for one in captures}) == len(captures)
    assert captures[0].pixel_array.shape == (1024, 1024, 3)


def test_captures_follow_the_source_s_instance_numbers_and_name_their_slice(case: Case) -> None:
    headers = case.headers()
    shown = [headers[one.SourceImageSequence[0].ReferencedSOPInstanceUID] for one in case.of_kind(ResultKind.SC)[1:]]
    numbers = [int(one.InstanceNumber) for one in shown]
    assert numbers == sorted(numbers)
    slices = {one.sop_instance_uid: index for index, one in enumerate(case.volume.frames)}
    assert {slices[one.SOPInstanceUID] for one in shown} == set(slices_with_findings(case.findings, len(slices)))


def test_a_capture_is_rgb_lossless_and_says_that_nothing_identifying_is_burned_in(case: Case) -> None:
    for one in case.of_kind(ResultKind.SC):
        assert one.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert (one.PhotometricInterpretation, one.SamplesPerPixel, one.BitsAllocated) == ("RGB", 3, 8)
        assert (one.BurnedInAnnotation, one.LossyImageCompression) == ("NO", "00")
        assert min(one.Rows, one.Columns) >= 512
        assert one.DerivationDescription


def test_no_name_id_or_date_is_drawn_whoever_the_patient_is(tmp_path: Path) -> None:
    pixels = []
    for name, changes in (("a", {}), ("b", {"PatientName": "Other^Name", "PatientID": "ZZ-999", "StudyDate": "19991231"})):
        paths = small_series(tmp_path / name, **changes)
        made = make_case(paths, None, volume_of(paths), tmp_path / f"{name}-results")
        pixels.append([one.pixel_array for one in made.of_kind(ResultKind.SC)])
    assert all(np.array_equal(*pair) for pair in zip(*pixels, strict=True))


def test_text_and_marks_keep_out_of_the_top_tenth(case: Case) -> None:
    volume, findings = case.volume, with_everything(case.volume, case.findings)
    index = case.findings.lesions[0].key_slice_index
    look = Look(notice="NOTICE", caption="caption")
    bare = replace(findings, label_maps=(), lesions=(), boxes=(), heatmaps=())
    drawn = np.asarray(slice_picture(volume, findings, index, look)).astype(int)
    plain = np.asarray(slice_picture(volume, bare, index, replace(look, notice="", caption="", sides=False))).astype(int)
    top = round(drawn.shape[0] * 0.1)
    assert np.array_equal(drawn[:top], plain[:top])
    assert (drawn != plain).any()
    page = case.of_kind(ResultKind.SC)[0].pixel_array
    assert (page[: page.shape[0] // 10] == page[0, 0]).all()


def test_each_kind_of_finding_is_drawn(case: Case) -> None:
    findings = with_everything(case.volume, case.findings)
    index = 4
    full = np.asarray(slice_picture(case.volume, findings, index, Look()))
    for without in ({"label_maps": (), "lesions": ()}, {"boxes": ()}, {"heatmaps": ()}):
        assert not np.array_equal(full, np.asarray(slice_picture(case.volume, replace(findings, **without), index, Look())))


def test_a_contour_lies_on_its_lesion_and_is_thin(case: Case) -> None:
    lesion = case.findings.lesions[0]
    index = lesion.key_slice_index
    only = replace(case.findings, label_maps=case.findings.label_maps[1:], lesions=case.findings.lesions[:1])
    look = Look(names=False, sides=False)
    with_contour = np.asarray(slice_picture(case.volume, only, index, look)).astype(int)
    without = np.asarray(slice_picture(case.volume, replace(only, label_maps=(), lesions=()), index, look)).astype(int)
    rows, columns = np.nonzero(np.abs(with_contour - without).sum(axis=2) > 60)
    scale = with_contour.shape[0] / case.volume.shape[1]
    mask_rows, mask_columns = np.nonzero(only.label_maps[0].labels[index] == 1)
    aspect = case.volume.spacing_mm[2] / case.volume.spacing_mm[1]
    assert rows.min() / scale == pytest.approx(mask_rows.min(), abs=0.7)
    assert rows.max() / scale == pytest.approx(mask_rows.max() + 1, abs=0.7)
    assert columns.min() / scale / aspect == pytest.approx(mask_columns.min(), abs=0.7)
    area = (mask_rows.max() - mask_rows.min() + 1) * (mask_columns.max() - mask_columns.min() + 1) * scale**2
    assert len(rows) < area / 3


def test_pixels_that_are_not_square_are_shown_in_true_proportions(case: Case) -> None:
    shown = picture(case.volume, case.findings, 0, shortest_side=600)
    _, rows, columns = case.volume.shape
    assert shown.width / shown.height == pytest.approx(columns * 0.7 / (rows * 0.8), rel=0.01)


def test_the_source_s_window_is_used_and_a_ct_without_one_gets_a_lung_window(case: Case) -> None:
    assert window_of(case.volume) == (-600, 1500)
    silent = replace(case.volume, headers=HeaderSummary(modality="CT"))
    assert window_of(silent) == (-600, 1500)
    soft = replace(case.volume, headers=HeaderSummary(modality="CT", window_center=40, window_width=400))
    grey = windowed(np.array([-160, 40, 240], np.int16), window_of(soft))
    assert [int(one) for one in grey] == [0, 128, 255]


def test_sides_are_those_of_the_patient_also_when_prone_or_sagittal() -> None:
    def affine(row: tuple[int, int, int], column: tuple[int, int, int]) -> np.ndarray:
        made = np.eye(4)
        made[:3, 2], made[:3, 1] = row, column
        return made

    assert sides_of(affine((1, 0, 0), (0, 1, 0))) == ("R", "L")
    assert sides_of(affine((-1, 0, 0), (0, -1, 0))) == ("L", "R")
    assert sides_of(affine((0, 1, 0), (0, 0, -1))) == ("A", "P")


def test_the_orientation_of_a_capture_is_that_of_its_source(case: Case, tmp_path: Path) -> None:
    assert case.of_kind(ResultKind.SC)[1].PatientOrientation == ["L", "P"]
    assert not case.of_kind(ResultKind.SC)[0].PatientOrientation
    paths = small_series(tmp_path / "prone", ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    prone = make_case(paths, None, volume_of(paths), tmp_path / "results")
    assert prone.of_kind(ResultKind.SC)[1].PatientOrientation == ["R", "A"]


def test_of_many_slices_twenty_are_shown_each_lesion_s_key_slice_among_them(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", slices=40, rows=32, columns=40)
    volume = volume_of(paths)
    lungs = small_findings(volume, nodules=0).label_maps[0].labels
    nodules = [ball(volume.shape, (20, 10, 10), (15, 4, 4)), ball(volume.shape, (9, 20, 30), (1.2, 3, 3))]
    findings = findings_of(volume, np.array(lungs), nodules)
    shown = slices_to_show(findings, 40)
    assert len(slices_with_findings(findings, 40)) == 31
    assert len(shown) == 20
    assert {lesion.key_slice_index for lesion in findings.lesions} <= set(shown)
    made = make_case(paths, findings, volume, tmp_path / "results")
    assert len(made.of_kind(ResultKind.SC)) == 21


def test_more_lesions_than_a_page_holds_are_counted(case: Case) -> None:
    from dicomnode.results.pages import MOST_ROWS, PageText, summary_page

    many = tuple(replace(case.findings.lesions[0], label=f"Nodule {number}") for number in range(MOST_ROWS + 3))
    text = PageText("title", "notice", range(1, 13))
    few = summary_page(case.volume, replace(case.findings, lesions=many[:MOST_ROWS]), text)
    full = summary_page(case.volume, replace(case.findings, lesions=many), text)
    assert np.asarray(few).tobytes() != np.asarray(full).tobytes()


def test_only_a_model_that_looks_for_lesions_is_said_to_have_reported_none(case: Case) -> None:
    from dicomnode.results.pages import PageText, summary_page

    text, nothing = PageText("title", "notice", range(1, 13)), replace(case.findings, lesions=(), classifications=())
    looked = np.asarray(summary_page(case.volume, nothing, text))
    never_looked = np.asarray(summary_page(case.volume, replace(nothing, lesions_sought=False), text))
    rows = np.flatnonzero((looked != never_looked).any(axis=(1, 2)))
    assert 10 < len(rows) < 60  # one line of words


def test_lossy_pixels_stay_known_as_lossy(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    for one in made.of_kind(ResultKind.SC):
        assert (one.LossyImageCompression, str(one.LossyImageCompressionRatio)) == ("01", "12.5")


def test_pictures_for_people_are_png_files_with_the_summary_first(case: Case, tmp_path: Path) -> None:
    paths = save_pictures(case.volume, case.findings, tmp_path / "pictures")
    assert paths[0].name == "summary.png"
    assert [path.name for path in paths[1:]] == [
        f"slice-{index + 1:03d}.png" for index in slices_with_findings(case.findings, len(case.paths))
    ]
    assert min(Image.open(paths[1]).size) >= 1024


def test_words_fit_on_a_page_however_long_they_are() -> None:
    from dicomnode.results.drawing import shorten, wrap

    assert text_size(shorten("a very long sentence " * 20, 20, 300), 20)[0] <= 300
    assert all(text_size(line, 20)[0] <= 300 for line in wrap("several words of a sentence " * 9, 20, 300))


def test_a_request_for_some_kinds_gets_these_kinds(case: Case, tmp_path: Path) -> None:
    made = make_case(case.paths, case.findings, case.volume, tmp_path, kinds=(ResultKind.SC,))
    assert {one.kind for one in made.objects} == {ResultKind.SC}
    assert request_for(case.paths).kinds == DEFAULT_KINDS
    captures = [(one.sop_instance_uid, one.sha256) for one in case.objects if one.kind is ResultKind.SC]
    assert [(one.sop_instance_uid, one.sha256) for one in made.objects] == captures


def test_a_page_that_is_full_says_so_and_keeps_its_footer(case: Case) -> None:
    from dicomnode.results.pages import PageText, summary_page

    lungs = case.findings.label_maps[0]
    organs = tuple(replace(lungs.segments[0], label=f"A rather long organ's name {number}") for number in range(120))
    full = replace(
        case.findings,
        label_maps=(replace(lungs, segments=organs), case.findings.label_maps[1]),
        lesions=case.findings.lesions * 4,
        classifications=case.findings.classifications * 2,
        warnings=("a note", "another note", "a third note"),
    )
    page = np.asarray(summary_page(case.volume, full, PageText("title", "notice", range(1, 13), "Overlays: 20 of 31 slices.")))
    assert (page[-8:] == page[0, 0]).all()


def test_a_probability_is_never_rounded_to_certainty_and_a_dark_colour_never_lost_on_lung() -> None:
    from dicomnode.results.drawing import visible
    from dicomnode.results.wording import percent

    assert [percent(value) for value in (0.0, 0.0008, 0.08, 0.499, 0.996, 1.0)] == ["0%", "<1%", "8%", "50%", ">99%", "100%"]
    assert visible((255, 90, 90)) == (255, 90, 90)
    assert sum(visible((0, 90, 160))) > sum((0, 90, 160))


def test_a_route_may_ask_for_names_in_any_script_and_the_captures_then_say_so(tmp_path: Path) -> None:
    name = "Papadopoulos^Eleni=Παπαδοπούλου^Ελένη=Иванова 山田"
    changes = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": name}
    paths = small_series(tmp_path / "ct", slices=6, **changes)
    volume = volume_of(paths)
    asked = make_case(paths, None, volume, tmp_path / "asked", kinds=(ResultKind.SC,), draw_identity=True)
    silent = make_case(paths, None, volume, tmp_path / "silent", kinds=(ResultKind.SC,))
    assert {one.BurnedInAnnotation for one in asked.of_kind(ResultKind.SC)} == {"YES"}
    for drawn, plain in zip(asked.of_kind(ResultKind.SC), silent.of_kind(ResultKind.SC), strict=True):
        assert drawn.SOPInstanceUID != plain.SOPInstanceUID
        assert (drawn.pixel_array != plain.pixel_array).any()
        assert np.array_equal(drawn.pixel_array[: drawn.Rows // 10], plain.pixel_array[: drawn.Rows // 10])


def test_a_name_that_no_font_draws_holds_the_result_instead_of_being_drawn_wrong() -> None:
    from dicomnode.domain.errors import ResultCheckFailed
    from dicomnode.results.fonts import ensure_drawable

    ensure_drawable("Müller Παπαδόπουλος Иванов 山田 太郎 やまだ 김희중 王小東")
    with pytest.raises(ResultCheckFailed, match="cannot be drawn"):
        ensure_drawable("\U0001f600")


def test_multi_frame_captures_are_one_object_with_the_summary_first(case: Case, tmp_path: Path) -> None:
    profile = Profile("multi", kinds=(ResultKind.SC,), sc_form=ScForm.MULTI_FRAME, text_position=TextPosition.TOP)
    made = make_case(case.paths, case.findings, case.volume, tmp_path, profiles=(profile,))
    (one,) = made.of_kind(ResultKind.SC)
    singles = case.of_kind(ResultKind.SC)
    assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7.4"
    assert one.NumberOfFrames == len(singles) == len(one.PageNumberVector)
    named = {item.ReferencedSOPInstanceUID for item in one.SourceImageSequence}
    assert named == {item.ReferencedSOPInstanceUID for single in singles for item in single.SourceImageSequence}
    top = (one.Rows - 1024) // 2, (one.Columns - 1024) // 2
    assert np.array_equal(one.pixel_array[0, top[0] : top[0] + 1024, top[1] : top[1] + 1024], singles[0].pixel_array)


def test_text_at_the_top_keeps_out_of_the_viewer_s_bar_too(case: Case) -> None:
    look = Look(notice="NOTICE", caption="caption", identity="Name", position=TextPosition.TOP, sides=False, names=False)
    drawn = np.asarray(slice_picture(case.volume, case.findings, 4, look)).astype(int)
    plain = np.asarray(slice_picture(case.volume, case.findings, 4, replace(look, notice="", caption="", identity=""))).astype(
        int
    )
    rows = np.flatnonzero((drawn != plain).any(axis=(1, 2)))
    assert rows.min() >= drawn.shape[0] * 0.1
    assert rows.max() < drawn.shape[0] * 0.3


def test_a_projection_shows_its_sides_by_patient_orientation(case: Case) -> None:
    from dicomnode.results.slices import sides_shown

    pixels = np.zeros((8, 8), np.uint16)
    image = Image2D(pixels, None, SpacingOrigin.NONE, FrameRef("1.2", "1.3"), HeaderSummary("DX"), "1.4", "1.5")
    assert sides_shown(image, ("L", "F")) == ("R", "L")
    assert sides_shown(image, ("A", "F")) == ("P", "A")
    assert sides_shown(image, ()) is None


def flat_radiograph(side: int) -> tuple[Image2D, Findings]:
    """One grey, a box in the middle of it."""
    pixels = np.full((side, side), 100, np.uint16)
    headers = HeaderSummary("DX", window_center=100, window_width=400)
    image = Image2D(pixels, None, SpacingOrigin.NONE, FrameRef("1.2", "1.3"), headers, "1.4", "1.5")
    box = Box("Opacity", (0, side // 4, side // 4), (1, side * 3 // 4, side * 3 // 4), 0.7)
    return image, Findings(MODEL, boxes=(box,))


def proportions(side: int) -> tuple[float, float, float]:
    """Width of the box's line, height of the notice's capitals and of the side's letter, as shares of the picture's side."""
    image, findings = flat_radiograph(side)
    look = Look(notice="HHHHH", orientation=("L", "F"), names=False)
    drawn = np.asarray(slice_picture(image, findings, 0, look)).astype(int)
    assert drawn.shape[:2] == (side, side)
    amber = np.abs(drawn - AMBER).max(axis=2) < 60
    line = np.count_nonzero(amber[int(side * 0.35), : side // 2])
    notice = np.flatnonzero(amber[int(side * 0.8) :].any(axis=1))
    white = (drawn[int(side * 0.4) : int(side * 0.6), : side // 10] > 200).all(axis=2)
    letter = np.flatnonzero(white.any(axis=1))
    return line / side, (np.ptp(notice) + 1) / side, (np.ptp(letter) + 1) / side


def test_text_and_lines_are_as_large_a_share_of_a_capture_of_2048_pixels_as_of_one_of_512() -> None:
    line, text, letter = proportions(512)
    assert 0.0019 < line < 0.006  # a pixel or two and a half of 512
    assert text > 0.016  # capitals of 8 pixels of 512: what is read at arm's length when the picture fills the screen
    assert letter > 0.024
    for side in (1024, 2048):
        assert proportions(side)[0] == pytest.approx(line, rel=0.5)  # whole pixels: 1.5 of 512 are 1 or 2
        assert proportions(side)[1:] == pytest.approx((text, letter), rel=0.15)
