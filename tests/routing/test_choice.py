"""The best series of a study, and a reason for each other one."""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.domain.imaging import RefusalCode
from dicomnode.domain.states import SeriesState
from dicomnode.registry import SeriesEvidence
from dicomnode.routing import PipelineFacts, choose_series
from dicomnode.routing.kernels import Sharpness, sharpness

FACTS = PipelineFacts("chest_ct", "CT", 8)
AT = datetime(2026, 11, 21, tzinfo=UTC)
AXIAL = "1\\0\\0\\0\\1\\0"
CORONAL = "1\\0\\0\\0\\0\\-1"


def series(
    number: int,
    *,
    image_type: str = "ORIGINAL\\PRIMARY\\AXIAL",
    kernel: str = "B30f",
    thickness: str = "1.0",
    slices: int = 200,
    orientation: str = AXIAL,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.2",
) -> SeriesEvidence:
    return SeriesEvidence(
        series_id=number,
        key=f"E{number}",
        series_instance_uid=f"1.2.{number}",
        state=SeriesState.COMPLETE,
        generation=0,
        sop_class_uid=sop_class,
        attributes={
            "Modality": "CT",
            "ConvolutionKernel": kernel,
            "SliceThickness": thickness,
            "SeriesNumber": str(number),
            "ImageOrientationPatient": orientation,
        },
        image_types={image_type: slices} if image_type else {"": slices},
        instance_numbers=tuple(range(1, slices + 1)),
        instances=slices,
        slices=slices,
        opened_at=AT,
        last_arrival_at=AT,
    )


LOCALIZER = series(1, image_type="ORIGINAL\\PRIMARY\\LOCALIZER", slices=2, thickness="", kernel="")
SHARP = series(2, kernel="B70f")
SOFT = series(3)
REFORMAT = series(4, image_type="DERIVED\\SECONDARY\\REFORMATTED", orientation=CORONAL)


def test_the_soft_kernel_wins_and_each_loser_has_its_reason() -> None:
    for order in permutations([LOCALIZER, SHARP, SOFT, REFORMAT]):
        choice = choose_series(order, FACTS)
        assert choice.best == SOFT
        reasons = {loser.series_id: loser.why for loser in choice.losers}
        assert reasons == {
            1: "it is a localizer",
            2: "its kernel B70f (sharp) suits less than B30f (soft) of E3",
            4: "it is derived or reformatted (Image Type DERIVED\\SECONDARY\\REFORMATTED)",
        }


@pytest.mark.parametrize(
    ("loser", "reason"),
    [
        (series(9, thickness="5"), "its slices (5 mm) suit less"),
        (series(9, thickness="0.1"), "its slices (0.1 mm) suit less"),
        (series(9, thickness=""), "its slices (unknown thickness) suit less"),
        (series(9, kernel=""), "its kernel (not stated) suits less"),
        (series(9, slices=120), "it has fewer slices (120) than E3 (200)"),
        (series(9), "E3 is as good and has the lower series number"),
        (series(9, orientation=CORONAL), "it is not axial"),
        (series(9, slices=4), "it has 4 slices, the pipeline needs 8"),
        (series(9, sop_class="1.2.840.10008.5.1.4.1.1.7"), "secondary captures"),
        (series(9, image_type="DERIVED \\PRIMARY\\AXIAL"), "derived"),
        (series(9, image_type="ORIGINAL\\PRIMARY\\AXIAL\\MPR"), "derived or reformatted"),
    ],
)
def test_a_worse_series_loses_for_a_stated_reason(loser: SeriesEvidence, reason: str) -> None:
    choice = choose_series([loser, SOFT], FACTS)
    assert choice.best == SOFT
    assert reason in choice.losers[0].why


def test_a_sharp_series_alone_is_better_than_none() -> None:
    choice = choose_series([SHARP], FACTS)
    assert choice.best == SHARP
    assert choice.why == "it is the only series that matches (200 slices of 1 mm, kernel B70f (sharp))"


def test_an_absent_image_type_is_tolerated() -> None:
    assert choose_series([series(5, image_type="")], FACTS).best is not None


def test_thin_enough_is_equal_so_that_the_kernel_decides() -> None:
    assert choose_series([series(1, kernel="B70f", thickness="1.0"), series(2, thickness="1.25")], FACTS).best == series(
        2, thickness="1.25"
    )


def test_without_an_eligible_series_there_is_no_best() -> None:
    choice = choose_series([LOCALIZER, REFORMAT], FACTS)
    assert choice.best is None
    assert [loser.code for loser in choice.losers] == [RefusalCode.LOCALIZER, RefusalCode.NO_ELIGIBLE_SERIES]


def test_a_projection_pipeline_takes_one_image_even_as_secondary_capture() -> None:
    radiograph = series(1, slices=1, sop_class="1.2.840.10008.5.1.4.1.1.7", image_type="", kernel="", thickness="")
    assert choose_series([radiograph], PipelineFacts("chest_xray", "CR", min_slices=1)).best == radiograph


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("B30f", Sharpness.SOFT), ("B40f", Sharpness.SOFT), ("B70f", Sharpness.SHARP), ("B50s", Sharpness.SHARP),
        ("Br40d\\3", Sharpness.SOFT), ("Bf37", Sharpness.SOFT), ("Br64", Sharpness.SHARP), ("Bl57d\\3", Sharpness.SHARP),
        ("I31f\\3", Sharpness.SOFT), ("Qr40d", Sharpness.SOFT), ("STANDARD", Sharpness.SOFT), ("soft ", Sharpness.SOFT),
        ("LUNG", Sharpness.SHARP), ("BONEPLUS", Sharpness.SHARP), ("FC08", Sharpness.SOFT), ("FC51", Sharpness.SHARP),
        ("FC30", Sharpness.SHARP), ("FL03", Sharpness.SHARP), ("B", Sharpness.SOFT), ("YA", Sharpness.SHARP),
        ("L", Sharpness.SHARP), ("", Sharpness.UNKNOWN), ("Xyz", Sharpness.UNKNOWN), ("\\", Sharpness.UNKNOWN),
    ],
)  # fmt: skip
def test_makers_kernel_names_are_understood(kernel: str, expected: Sharpness) -> None:
    assert sharpness(kernel) is expected


_any_series = st.builds(
    series,
    st.integers(1, 9),
    image_type=st.sampled_from(["", "ORIGINAL\\PRIMARY", "DERIVED\\SECONDARY", "ORIGINAL\\PRIMARY\\LOCALIZER", "\\"]),
    kernel=st.sampled_from(["", "B30f", "B70f", "LUNG", "?"]),
    thickness=st.sampled_from(["", "0", "-1", "1", "2.5", "5", "nan", "thick"]),
    slices=st.integers(1, 40),
    orientation=st.sampled_from(["", AXIAL, CORONAL, "1\\0", "a\\b\\c\\d\\e\\f"]),
)


@given(st.lists(_any_series, min_size=1, max_size=6, unique_by=lambda one: one.series_id), st.randoms())
@settings(max_examples=150, deadline=None)
def test_the_choice_does_not_depend_on_the_order_and_names_every_loser(
    candidates: list[SeriesEvidence], random: object
) -> None:
    choice = choose_series(candidates, FACTS)
    shuffled = candidates.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_series(shuffled, FACTS).best == choice.best
    losers = {loser.series_id for loser in choice.losers}
    assert losers == {one.series_id for one in candidates} - ({choice.best.series_id} if choice.best else set())
    assert all(loser.why for loser in choice.losers)
