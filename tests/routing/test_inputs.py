"""A pipeline that reads several series of a study together gets one for each of its roles, or a reason why not."""

from dataclasses import replace
from itertools import permutations

from dicomnode.domain.imaging import RefusalCode
from dicomnode.domain.routes import InputRole
from dicomnode.registry import SeriesEvidence
from dicomnode.routing import PipelineFacts, choose_inputs, refusal
from tests.routing.test_choice import series


def mr(number: int, description: str, **changed: str) -> SeriesEvidence:
    one = series(
        number, kernel="", sop_class="1.2.840.10008.5.1.4.1.1.4", image_type=changed.pop("image_type", "ORIGINAL\\PRIMARY")
    )
    return replace(one, attributes={**one.attributes, "Modality": "MR", "SeriesDescription": description, **changed})


def role(name: str, *patterns: str, derived: bool = False) -> InputRole:
    return InputRole(name, {"SeriesDescription": patterns}, derived)


BRAIN = PipelineFacts(
    "brats", "MR", 8, inputs=(role("t1c", "*t1*gd*", "*t1c*"), role("t1", "*t1*"), role("t2", "*t2*"), role("flair", "*flair*"))
)
SCOUT = mr(1, "localizer", image_type="ORIGINAL\\PRIMARY\\LOCALIZER")
T1, T1C, T2, FLAIR = mr(2, "Ax T1 SE"), mr(3, "Ax T1 +Gd"), mr(4, "Ax T2 TSE"), mr(5, "Ax T2 FLAIR")


def test_each_role_gets_its_series_in_whatever_order_they_came() -> None:
    """ "t1" also fits the contrast-enhanced one and "t2" the FLAIR: who has fewer to choose from takes first."""
    for order in permutations([SCOUT, T1, T1C, T2, FLAIR]):
        choice = choose_inputs(order, BRAIN)
        assert choice.best == T1C
        assert dict(choice.others) == {"t1": T1, "t2": T2, "flair": FLAIR}
        assert [(loser.series_id, loser.code) for loser in choice.losers] == [(1, RefusalCode.LOCALIZER)]


def test_of_two_series_for_one_role_the_better_is_read_and_the_other_told_why() -> None:
    thick = mr(6, "Ax T2 TSE", SliceThickness="6")
    choice = choose_inputs([T1, T1C, thick, T2, FLAIR], BRAIN)
    assert choice.others["t2"] == T2
    assert {loser.series_id: loser.why for loser in choice.losers} == {
        6: "as t2: its slices (6 mm) suit less than those of E4 (1 mm)"
    }


def test_a_series_in_the_space_of_the_others_is_preferred() -> None:
    here = [replace(one, attributes={**one.attributes, "FrameOfReferenceUID": "1.1"}) for one in (T1, T1C, FLAIR)]
    elsewhere = mr(4, "Ax T2 TSE", FrameOfReferenceUID="1.2")
    beside = mr(7, "Ax T2 TSE", FrameOfReferenceUID="1.1", SliceThickness="3")
    choice = choose_inputs([*here, elsewhere, beside], BRAIN)
    assert choice.others["t2"].series_id == 7
    assert "frame of reference" in choice.losers[0].why


def test_without_one_of_them_nothing_runs_and_the_refusal_names_it() -> None:
    choice = choose_inputs([T1, T1C, T2], BRAIN)
    assert choice.best is None
    said = refusal([T1, T1C, T2], choice, "brain")
    assert said.code is RefusalCode.NO_ELIGIBLE_SERIES
    assert "missing: flair" in said.message
    assert "brain" in said.remedy


def test_a_computed_map_is_read_only_where_its_role_allows_it() -> None:
    adc = mr(8, "ADC", image_type="DERIVED\\PRIMARY\\ADC")
    for allowed in (True, False):
        facts = PipelineFacts("prostate", "MR", 8, inputs=(role("t2w", "*t2*"), role("adc", "*adc*", derived=allowed)))
        choice = choose_inputs([T2, adc], facts)
        assert (choice.best is not None) is allowed
