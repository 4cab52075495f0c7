"""When is enough there?"""

from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.domain.routes import Route
from dicomnode.registry import AssociationEvidence
from dicomnode.routing import Arrivals, is_complete

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ROUTE = Route("chest-ct", {"Modality": ("CT",)}, "chest_ct", "exact", "best", ("pacs",), ("SEG",), quiet_s=10, max_wait_s=600)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def arrivals(
    last: float = 0, *, missing: int = 0, final: bool = False, associations: tuple[AssociationEvidence, ...] = ()
) -> Arrivals:
    return Arrivals(START, after(last), missing, final, associations)


def association(active: float, *, this_study: bool = True, nothing_yet: bool = False) -> AssociationEvidence:
    return AssociationEvidence("A1", "MODALITY", "127.0.0.1", after(active), this_study, nothing_yet)


@pytest.mark.parametrize(("silent", "complete"), [(0, False), (9.9, False), (10, True), (100, True)])
def test_the_quiet_period_counts_from_the_last_image(silent: float, complete: bool) -> None:
    assert is_complete(arrivals(last=50), ROUTE, after(50 + silent)).complete is complete


def test_an_association_that_sends_this_study_holds_it_open() -> None:
    judged = is_complete(arrivals(last=50, associations=(association(50),)), ROUTE, after(65))
    assert not judged.complete
    assert judged.waits_for == "the end of association A1"


def test_an_association_that_has_sent_nothing_yet_holds_it_open() -> None:
    assert not is_complete(
        arrivals(last=50, associations=(association(50, this_study=False, nothing_yet=True),)), ROUTE, after(65)
    ).complete


def test_an_association_that_went_on_to_another_study_holds_nothing() -> None:
    assert is_complete(arrivals(last=50, associations=(association(64, this_study=False),)), ROUTE, after(65)).complete


def test_an_association_that_is_open_but_idle_holds_nothing() -> None:
    assert is_complete(arrivals(last=50, associations=(association(50),)), ROUTE, after(81)).complete


@pytest.mark.parametrize(("silent", "complete"), [(10, False), (29, False), (30, True)])
def test_a_gap_in_the_numbers_only_lengthens_the_wait(silent: float, complete: bool) -> None:
    judged = is_complete(arrivals(missing=2), ROUTE, after(silent))
    assert judged.complete is complete
    assert "2 image numbers are missing" in judged.why + judged.waits_for


@pytest.mark.parametrize(("silent", "complete"), [(0, False), (4.9, False), (5, True)])
def test_a_final_count_shortens_the_wait_and_never_skips_it(silent: float, complete: bool) -> None:
    assert is_complete(arrivals(final=True), ROUTE, after(silent)).complete is complete


def test_even_a_final_count_waits_for_an_open_association() -> None:
    assert not is_complete(arrivals(final=True, associations=(association(0),)), ROUTE, after(6)).complete


def test_the_routes_maximum_forces_completion_and_marks_it() -> None:
    judged = is_complete(arrivals(last=599, associations=(association(599),)), ROUTE, after(600))
    assert (judged.complete, judged.forced) == (True, True)
    assert judged.why == "600 s after its first image it still waited for the end of association A1"


def test_what_is_complete_anyway_is_not_called_forced() -> None:
    judged = is_complete(arrivals(last=590), ROUTE, after(601))
    assert (judged.complete, judged.forced) == (True, False)
