"""Figures on cases small enough to be worked out by hand."""

import numpy as np
import pytest

from dicomnode.learning.metrics import Target, area_under_curve, classification_figures, dice, match


def test_dice_is_twice_the_overlap_over_the_sum() -> None:
    one = np.array([True, True, True, False])
    other = np.array([False, True, True, True])
    assert dice(one, other) == pytest.approx(2 * 2 / 6)
    assert dice(one, ~one) == 0
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_a_report_within_radius_and_slack_is_a_hit_and_any_other_a_false_positive() -> None:
    targets = [Target((0, 0, 0), 10), Target((100, 0, 0), 6)]
    matching = match(targets, [(8.9, 0, 0), (3, 0, 0), (50, 0, 0), (100, 7.5, 0)], slack_mm=4)
    assert matching.found == (True, False)
    assert matching.false_positives == 2


def test_no_reports_find_nothing_and_cost_nothing() -> None:
    assert match([Target((0, 0, 0), 10)], []) == match([Target((9, 9, 9), 4)], [])
    assert match([], [(1, 2, 3)]).false_positives == 1


def test_classification_figures_on_five_scans() -> None:
    figures = classification_figures([True, True, True, False, False], [0.9, 0.8, 0.3, 0.6, 0.1], threshold=0.5)
    assert figures.accuracy == pytest.approx(3 / 5)
    assert figures.recall == pytest.approx(2 / 3)
    assert figures.precision == pytest.approx(2 / 3)
    assert figures.f1 == pytest.approx(2 / 3)
    assert figures.auc == pytest.approx(5 / 6)


def test_the_threshold_itself_counts_as_present() -> None:
    assert classification_figures([True], [0.5], threshold=0.5).recall == 1


def test_auc_is_one_half_for_ties_and_unknown_without_both_kinds() -> None:
    assert area_under_curve(np.array([True, False]), np.array([0.4, 0.4])) == 0.5
    assert area_under_curve(np.array([True, True]), np.array([0.4, 0.5])) is None
    assert classification_figures([False], [0.1], 0.5).recall is None
