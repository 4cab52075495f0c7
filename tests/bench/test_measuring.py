"""The statistics, and what a report says of them."""

import json
from pathlib import Path

import pytest

from dicomnode.bench import Goal, Report, Row, figures
from dicomnode.bench.ingest_cases import CASES, RECEIVERS, goals
from dicomnode.bench.measuring import Rounds, ratios, rotated
from dicomnode.bench.profile import shares
from dicomnode.bench.report import LeftOut, machine, tables


def time(case: str, subject: str, *rounds: float, unit: str = "ms/image") -> Row:
    return Row(case, subject, unit, rounds)


def report(*rows: Row, judged: tuple[Goal, ...] = (), left_out: tuple[LeftOut, ...] = ()) -> Report:
    host = {"cpu": "a", "cores": 2, "memory_mb": 1024, "system": "Linux", "file_system": "ext4 on /dev/x", "load_1min": 0.1}
    told = ratios(rows)
    return Report("ingest", host, {"dcmtk": None}, 0.0, 1.0, rows, told, ratios(rows, best=True), judged, left_out)


def test_a_ratio_above_one_says_that_ours_is_faster() -> None:
    rows = [time("1xCT", "ours", 1.0, 9.0, 2.0), time("1xCT", "orthanc", 5.0, 4.0, 8.0)]
    assert ratios(rows) == {"1xCT/orthanc": 2.5}
    assert ratios(rows, best=True) == {"1xCT/orthanc": 4.0}


def test_ratios_are_made_within_a_case_and_of_times_alone() -> None:
    rows = [time("1xCT", "ours", 1.0), time("1xMR", "orthanc", 4.0), time("1xCT", "orthanc", 3.0, unit="MB peak")]
    assert ratios(rows) == {}


def test_rounds_of_one_subject_become_one_row_for_each_unit() -> None:
    rounds = Rounds()
    for value in (3.0, 1.0, 2.0):
        rounds.add("1xCT", "ours", "ms/image", value)
        rounds.add("1xCT", "ours", "MB peak", 10 * value)
    first, second = rounds.rows()
    assert (first.median, first.best, second.median) == (2.0, 1.0, 20.0)


def test_every_subject_runs_in_every_round_and_each_round_is_begun_by_another() -> None:
    orders = [tuple(rotated("abc", number)) for number in range(4)]
    assert [order[0] for order in orders] == ["a", "b", "c", "a"]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


@pytest.mark.parametrize(("measured", "met"), [(1.29, True), (1.3, True), (1.31, False), (None, None)])
def test_the_law_is_met_up_to_its_bound(measured: float | None, met: bool | None) -> None:
    assert Goal("1xCT", "law", 1.3, measured, at_most=True).met is met


def law(image: float, unsynced: float, sync: float) -> list[Row]:
    median = "ms, median image"
    return [
        time("1xCT", "ours", image, unit=median),
        time("1xCT", "ours-unsynced", unsynced, unit=median),
        time("1xCT", "disk", sync, unit="ms/sync"),
    ]


def test_the_gate_compares_the_image_with_the_unsynced_one_and_one_sync() -> None:
    by_name = {goal.name: goal for goal in goals(law(1.2, 0.5, 0.5), {})}
    assert by_name["1xCT: T / (T0 + S)"].measured == pytest.approx(1.2)
    assert by_name["1xCT: T / (T0 + S)"].met
    by_name = {goal.name: goal for goal in goals(law(1.4, 0.5, 0.5), {})}
    assert by_name["1xCT: T / (T0 + S)"].met is False


def test_ratio_goals_count_only_on_a_quiet_disk_but_the_gate_always() -> None:
    for sync, applies in ((0.2, True), (3.0, False)):
        rows = [time("1xMR", "disk", sync, unit="ms/sync")]
        by_name = {goal.name: goal for goal in goals(rows, {"1xCT/orthanc": 2.0, "3ms-CT/orthanc": 1.2})}
        assert by_name["1xCT/orthanc"].applies is applies
        assert by_name["1xCT/orthanc"].met is (False if applies else None)
        assert by_name["3ms-CT/orthanc"].met is False


def test_a_gate_that_was_not_measured_does_not_hold() -> None:
    assert not report().gate_holds
    assert not report(judged=(Goal("c", "a", 1.0, 2.0, gate=True), Goal("c", "b", 1.0, None, gate=True))).gate_holds
    assert not report(judged=(Goal("c", "a", 1.0, 0.5, gate=True),)).gate_holds
    assert report(judged=(Goal("c", "a", 1.0, 2.0, gate=True), Goal("c", "b", 9.0, 2.0))).gate_holds


def test_every_goal_names_a_case_and_a_receiver_that_take_part() -> None:
    taking_part = {f"{case.name}/{name}" for case in CASES for name in case.subjects}
    named = {goal.name for goal in goals([], {}) if "/" in goal.name and ":" not in goal.name}
    assert named
    assert named <= taking_part
    assert {name for case in CASES for name in (*case.subjects, *case.only_full)} <= set(RECEIVERS)


def test_the_document_holds_what_the_contract_promises() -> None:
    document = json.loads(json.dumps(report(time("1xCT", "ours", 1.0), time("1xCT", "orthanc", 2.5)).as_json()))
    assert {"machine", "versions", "rows", "ratios"} <= set(document)
    assert {"case", "subject", "median", "unit"} <= set(document["rows"][0])
    assert document["ratios"] == {"1xCT/orthanc": 2.5}


def test_figures_show_goals_met_and_missed_and_what_was_left_out() -> None:
    judged = (Goal("1xCT", "1xCT/orthanc", 2.5, 2.6), Goal("1xCT", "1xCT/storescp", 0.5, 0.4), Goal("1GB", "1GB/x", 8.0, None))
    made = report(
        time("1xCT", "ours", 1.0), time("1xCT", "orthanc", 2.6), judged=judged, left_out=(LeftOut("1GB", "x", "no|pipe"),)
    )
    text = figures(made.as_json())
    assert "| 1xCT/orthanc | ≥ 2.5 | 2.60 | met |" in text
    assert "| 1xCT/storescp | ≥ 0.5 | 0.40 | not met |" in text
    assert "| 1GB/x | ≥ 8 | – | not measured |" in text
    assert "no\\|pipe" in text
    assert "dcmtk not installed" in text
    assert [title for title, _, _ in tables(made.as_json())] == ["Times", "Goals", "Left out"]


def test_a_thread_that_only_waits_is_not_where_time_goes() -> None:
    samples = [
        (1, "a:serve", "a:read: recv", 60),
        (1, "a:serve", "a:keep: write", 40),
        (2, "a:serve", "a:next: wait", 100),  # the same entry, another thread, idle
        (3, "b:refill", "b: wait", 999),
        (3, "b:refill", "b: open", 1),
        (4, "", "a library's own thread", 50),
    ]
    assert [(one["place"], one["share"]) for one in shares(samples)] == [("a:read: recv", 0.6), ("a:keep: write", 0.4)]


def test_the_machine_names_the_file_system_under_the_folder(tmp_path: Path) -> None:
    assert " on " in str(machine(tmp_path)["file_system"])
