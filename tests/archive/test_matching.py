"""Attribute matching (PS3.4 C.2.2.2), rule by rule."""

import random
import re
import time

import pytest

from dicomnode.archive.keys import KEYS
from dicomnode.archive.matching import Pattern, date_limits, matcher_of
from dicomnode.archive.refusals import RequestRefused


def matches(keyword: str, asked: str, held: str) -> bool:
    return matcher_of([(KEYS[keyword], asked)]).matches({keyword: held} if held else {})


@pytest.mark.parametrize(
    ("keyword", "asked", "held", "found"),
    [
        # single value (C.2.2.2.1): case counts but in names; padding does not
        ("PatientID", "A1", "A1", True),
        ("PatientID", " A1 ", "A1", True),
        ("PatientID", "a1", "A1", False),
        ("PatientID", "A1", "A12", False),
        ("AccessionNumber", "A[1]", "A[1]", True),
        ("StudyDescription", "50% chest_ct", "50% chest_ct", True),
        ("SeriesNumber", "7", "007", True),
        ("SeriesNumber", "7", "70", False),
        ("Rows", "512", "512", True),
        # names: without case and width, trailing empty components left out, any component group
        ("PatientName", "doe^JOHN", "Doe^John", True),
        ("PatientName", "Doe^John^^^", "Doe^John", True),
        ("PatientName", "Doe", "Doe^John", False),
        ("PatientName", "Doe^John", "Doe^John=\u5c71\u7530^\u592a\u90ce", True),
        (
            "PatientName",
            "\u5c71\u7530^\u592a\u90ce",
            "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
            True,
        ),
        ("PatientName", "\uff94\uff8f\uff80\uff9e*", "\u30e4\u30de\u30c0^\u30bf\u30ed\u30a6", True),
        ("PatientName", "Yamada*=\u5c71\u7530*", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", True),
        ("PatientName", "Yamada*=\u4f50\u85e4*", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", False),
        ("PatientName", "*=\u5c71\u7530*", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", True),
        ("PatientName", "*", "", True),
        ("PatientName", "D*", "", False),
        # universal (C.2.2.2.3)
        ("PatientID", "", "", True),
        ("PatientID", "*", "", True),
        ("PatientID", "***", "A1", True),
        ("StudyDate", "*", "", True),
        # wild cards (C.2.2.2.4)
        ("PatientID", "A*", "A1", True),
        ("PatientID", "A*", "A", True),
        ("PatientID", "A?", "A", False),
        ("PatientID", "A?", "A1", True),
        ("PatientID", "?", "AB", False),
        ("PatientID", "*1*", "A12", True),
        ("PatientID", "*12", "A112", True),
        ("PatientID", "A*1?", "A0100", False),
        ("PatientID", "A*1?", "A0110", True),
        ("PatientID", "A*B*C", "ABC", True),
        ("PatientID", "AB*BC", "ABC", False),
        ("PatientID", "**A**", "A", True),
        ("PatientID", "A.", "AB", False),
        ("SeriesNumber", "?", "7", False),  # no wild card in IS
        # list of UIDs (C.2.2.2.2)
        ("StudyInstanceUID", "1.2\\1.3", "1.3", True),
        ("StudyInstanceUID", "1.2\\1.3", "1.4", False),
        ("StudyInstanceUID", "1.2", "1.2", True),
        ("StudyInstanceUID", "1.2", "1.2.3", False),
        # several values: any of them (C.2.2.3)
        ("ModalitiesInStudy", "SEG", "CT\\SEG", True),
        ("ModalitiesInStudy", "MR", "CT\\SEG", False),
        ("ModalitiesInStudy", "S*", "CT\\SEG", True),
        ("ModalitiesInStudy", "MR\\CT", "CT\\SEG", True),
        # ranges (C.2.2.2.5)
        ("StudyDate", "20240102", "20240102", True),
        ("StudyDate", "20240102", "2024.01.02", True),
        ("StudyDate", "20240102-", "20240102", True),
        ("StudyDate", "20240102-", "20240101", False),
        ("StudyDate", "-20240102", "20240102", True),
        ("StudyDate", "-20240102", "20240103", False),
        ("StudyDate", "20240101-20240131", "20240131", True),
        ("StudyDate", "20240101-20240131", "20240201", False),
        ("StudyDate", "20240101-20240131", "", False),
        ("StudyDate", "20240101-20240131", "soon", False),
        ("StudyTime", "1030", "103000", True),
        ("StudyTime", "1030", "103059.999", True),
        ("StudyTime", "1030", "103100", False),
        ("StudyTime", "10-12", "125959", True),
        ("StudyTime", "10-12", "130000", False),
        ("StudyTime", "10:30:00-", "103000", True),
        ("StudyTime", "-0930", "0930", True),
        ("StudyTime", "101112.5", "101112.500000", True),
        ("StudyTime", "10-12", "", False),
    ],
)
def test_a_key_matches_as_the_standard_says(keyword: str, asked: str, held: str, found: bool) -> None:
    assert matches(keyword, asked, held) is found


@pytest.mark.parametrize(
    ("keyword", "asked"),
    [
        ("StudyDate", "2024"),
        ("StudyDate", "20240101-x"),
        ("StudyDate", "-"),
        ("StudyDate", "20240101-20240102-20240103"),
        ("StudyTime", "ten"),
        ("StudyTime", "-"),
        ("StudyInstanceUID", "1.2.*"),
        ("StudyInstanceUID", "1.2\\x"),
        ("StudyInstanceUID", "1" * 65),
    ],
)
def test_what_is_no_date_time_or_uid_is_refused(keyword: str, asked: str) -> None:
    with pytest.raises(RequestRefused, match="bad_key"):
        matches(keyword, asked, "20240101")


def test_date_and_time_are_one_moment_where_that_was_agreed_on() -> None:
    keys = [(KEYS["StudyDate"], "20240105-20240107"), (KEYS["StudyTime"], "1000-1800")]
    noon_of_each_day = [{"StudyDate": f"2024010{day}", "StudyTime": "2000"} for day in (4, 5, 6, 7)]
    assert [matcher_of(keys).matches(one) for one in noon_of_each_day] == [False] * 4
    assert [matcher_of(keys, combined=True).matches(one) for one in noon_of_each_day] == [False, True, True, False]
    early = {"StudyDate": "20240105", "StudyTime": "0930"}
    assert not matcher_of(keys, combined=True).matches(early)
    assert not matcher_of(keys, combined=True).matches({"StudyDate": "20240106"})


def test_all_keys_have_to_match() -> None:
    both = matcher_of([(KEYS["PatientID"], "A1"), (KEYS["PatientName"], "d*"), (KEYS["StudyDate"], "")])
    assert both.matches({"PatientID": "A1", "PatientName": "Doe"})
    assert not both.matches({"PatientID": "A1", "PatientName": "Roe"})


def test_patterns_match_what_a_regular_expression_matches() -> None:
    chance = random.Random(4)  # noqa: S311 - the same cases each time
    for _ in range(5_000):
        pattern = "".join(chance.choice("ab*?") for _ in range(chance.randrange(1, 8)))
        value = "".join(chance.choice("ab") for _ in range(chance.randrange(0, 9)))
        expression = "".join({"*": ".*", "?": "."}.get(character, character) for character in pattern)
        assert Pattern(pattern).matches(value) == bool(re.fullmatch(expression, value)), (pattern, value)


@pytest.mark.parametrize(
    "asked", ["*a" * 500 + "b", "*?" * 500, "*" * (1 << 20), "a*" * (1 << 19), "?" * (1 << 20), "\\".join("a" * 9999)]
)
def test_no_pattern_takes_long(asked: str) -> None:
    started = time.process_time()
    held = ["a" * 1024] * 200
    for keyword in ("PatientName", "PatientID"):
        test = matcher_of([(KEYS[keyword], asked)])
        for value in held:
            test.matches({keyword: value})
    assert time.process_time() - started < 1.0


def test_the_database_may_leave_out_only_what_no_date_of_the_range_is() -> None:
    assert date_limits("20240101-") == ("20240101", "99999999")
    assert date_limits("") is None
    assert date_limits("20240101") == ("20240101", "20240101")
