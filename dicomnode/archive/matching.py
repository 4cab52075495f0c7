"""Attribute matching (PS3.4 C.2.2.2): does what the index holds match what was asked? No I/O.

Time is bounded whatever is asked: a wildcard pattern is cut at its asterisks and each part is sought once, from where the one
before it ended. Backtracking, as a regular expression does it, takes minutes for "*a*a*a*a*a*b".
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomnode.archive.keys import Key
from dicomnode.archive.refusals import RequestRefused

type_match = Callable[[str], bool]

# VRs in which * and ? are wildcards (PS3.4 C.2.2.2.4); in the others they are characters like any other.
_WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?")
_NO_DATE, _LAST_DATE = "00000000", "99999999"
_NO_TIME, _LAST_TIME = 0, 235_960_999_999  # HHMMSSFFFFFF as a number; a leap second is 60
_ASTERISKS = re.compile(r"\*{2,}")
_LONGEST_VALUE = 1024
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Span:
    """From one point in time to another, over a date and a time that belong together."""

    date_keyword: str
    time_keyword: str
    first: tuple[str, int]
    last: tuple[str, int]

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether the object's point in time lies within."""
        date, time = _date(attributes.get(self.date_keyword, "")), _time(attributes.get(self.time_keyword, ""))
        return date is not None and time is not None and self.first <= (date, time) <= self.last


@dataclass(frozen=True, slots=True)
class Matcher:
    """Compares attributes (keyword → text) with all keys that a query restricts."""

    tests: Mapping[str, type_match]
    spans: tuple[Span, ...] = ()

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether all of them match. Where a value is unknown only universal matching matches (PS3.4 C.2.2.2.3)."""
        return all(test(attributes.get(keyword, "")) for keyword, test in self.tests.items()) and all(
            span.holds(attributes) for span in self.spans
        )


def matcher_of(wanted: Sequence[tuple[Key, str]], *, combined: bool = False) -> Matcher:
    """Of keys with their text, several values joined by a backslash; an empty one matches whatever there is.

    combined: a date and a time that belong together are one point in time (PS3.4 C.5.1.1). Raises RequestRefused.
    """
    texts = {key.keyword: text.strip() for key, text in wanted if text.strip().strip("*")}
    spans = tuple(_spans(texts)) if combined else ()
    spanned = {keyword for span in spans for keyword in (span.date_keyword, span.time_keyword)}
    vrs = {key.keyword: key.vr for key, _ in wanted}
    tests = {keyword: _any_value(vrs[keyword], _test(vrs[keyword], text)) for keyword, text in texts.items()}
    return Matcher({keyword: test for keyword, test in tests.items() if keyword not in spanned}, spans)


def _test(vr: str, text: str) -> type_match:
    if vr == "DA":
        return _within(_date_range(text), _date)
    if vr == "TM":
        return _within(_time_range(text), _time)
    if vr == "UI":
        return _one_of_uids(text)
    text = _ASTERISKS.sub("*", text)
    if len(text) > _LONGEST_VALUE:
        return lambda _: False  # the index holds no longer values
    values = [value.strip() for value in text.split("\\") if value.strip()]
    return _any([_name(value) if vr == "PN" else _text(vr, value) for value in values])


def _any(tests: Sequence[type_match]) -> type_match:
    return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)


def _any_value(vr: str, test: type_match) -> type_match:
    """An attribute of several values matches when one of them does (PS3.4 C.2.2.3)."""
    return lambda text: any(map(test, text.split("\\"))) if "\\" in text and vr != "PN" else test(text)


def _one_of_uids(text: str) -> type_match:
    uids = frozenset(uid.strip(" \0") for uid in text.split("\\"))
    if not all(_UID.fullmatch(uid) for uid in uids if uid):
        raise RequestRefused("bad_key")
    return uids.__contains__


def _text(vr: str, wanted: str) -> type_match:
    """Case counts here (PS3.4 C.2.2.2.1); padding does not."""
    if vr in _WILDCARD_VRS and ("*" in wanted or "?" in wanted):
        pattern = Pattern(wanted)
        return lambda value: pattern.matches(value.strip())
    if vr in ("IS", "DS"):
        return lambda value: value.strip() == wanted or _number(value) == _number(wanted) is not None
    return lambda value: value.strip() == wanted


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _name(wanted: str) -> type_match:
    """Upper and lower case, full and half width count as the same (PS3.4 C.2.2.2.1 allows it), as does what empty components
    at the end leave out. One component group asked for is compared with each group of the name; several with theirs.
    """
    groups = [folded_name(group) for group in wanted.split("=")]
    if len(groups) == 1:
        test = _folded(groups[0])
        return lambda value: bool(value) and any(test(folded_name(group)) for group in value.split("="))
    tests = [_folded(group) if group.strip("*") else None for group in groups]

    def matches(value: str) -> bool:
        parts = [folded_name(group) for group in value.split("=")]
        parts += [""] * (len(tests) - len(parts))
        return all(test is None or test(part) for test, part in zip(tests, parts, strict=False))

    return matches


def _folded(wanted: str) -> type_match:
    if "*" in wanted or "?" in wanted:
        return Pattern(wanted).matches
    return wanted.__eq__


def folded_name(group: str) -> str:
    """One component group for comparison."""
    components = unicodedata.normalize("NFKC", group).casefold().split("^")
    return "^".join(" ".join(component.split()) for component in components).rstrip("^")


class Pattern:
    """A wildcard pattern: * any characters, none too; ? exactly one."""

    def __init__(self, text: str) -> None:
        first, *others = map(_Part, text.split("*"))
        self._whole = not others
        self._first, self._last = first, others[-1] if others else first
        self._between = others[:-1]
        self._shortest = sum(part.length for part in (first, *others))

    def matches(self, value: str) -> bool:
        """Whether all of `value` is what the pattern says."""
        if len(value) < self._shortest:
            return False
        if self._whole:
            return len(value) == self._shortest and self._first.stands_at(value, 0)
        end = len(value) - self._last.length
        if not (self._first.stands_at(value, 0) and self._last.stands_at(value, end)):
            return False
        at = self._first.length
        for part in self._between:
            at = part.find(value, at, end)
            if at < 0:
                return False
            at += part.length
        return True


class _Part:
    """What stands between two asterisks: of one length, so that there is nothing to go back for."""

    def __init__(self, text: str) -> None:
        self.length, self._text = len(text), text
        dots = "".join("." if character == "?" else re.escape(character) for character in text)
        self._expression = re.compile(dots, re.DOTALL) if "?" in text else None

    def stands_at(self, value: str, at: int) -> bool:
        if self._expression is None:
            return value.startswith(self._text, at)
        return self._expression.match(value, at) is not None

    def find(self, value: str, at: int, end: int) -> int:
        if self._expression is None:
            return value.find(self._text, at, end)
        found = self._expression.search(value, at, end)
        return -1 if found is None else found.start()


def _within(limits: tuple[object, object], reading: Callable[[str], object | None]) -> type_match:
    first, last = limits

    def matches(value: str) -> bool:
        read = reading(value)
        return read is not None and first <= read <= last  # type: ignore[operator]

    return matches


def _date(text: str) -> str | None:
    """YYYYMMDD; dots are of ACR-NEMA (PS3.5 6.2: DA)."""
    text = text.strip().replace(".", "")
    return text if _DATE.fullmatch(text) else None


def date_limits(text: str) -> tuple[str, str] | None:
    """First and last day, YYYYMMDD, that a date or range stands for; None for any. Raises RequestRefused."""
    return _date_range(text) if text.strip().strip("*") else None


def _date_range(text: str) -> tuple[str, str]:
    first, dash, last = text.partition("-")
    low = _date(first) if first.strip() else _NO_DATE
    high = (_date(last) if last.strip() else _LAST_DATE) if dash else low
    if low is None or high is None or (dash and not first.strip() and not last.strip()):
        raise RequestRefused("bad_key")
    return low, high


def _interval(text: str) -> tuple[int, int] | None:
    """The first and last moment that a TM stands for: "10" is all of that hour (PS3.5 6.2: TM)."""
    found = _TIME.fullmatch(text.strip().replace(":", ""))
    if found is None:
        return None
    hour, minute, second, fraction = found.groups()
    first = f"{hour}{minute or '00'}{second or '00'}{(fraction or '').ljust(6, '0')}"
    last = f"{hour}{minute or '59'}{second or '59'}{(fraction or '').ljust(6, '9')}"
    return int(first), int(last)


def _time(text: str) -> int | None:
    interval = _interval(text)
    return None if interval is None else interval[0]


def _time_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not first.strip() and not last.strip():
        raise RequestRefused("bad_key")
    low, high = (_interval(part) if part.strip() else None for part in (first, last))
    if (first.strip() and low is None) or (last.strip() and high is None):
        raise RequestRefused("bad_key")
    if not dash and low is not None:
        return low
    return (low[0] if low else _NO_TIME), (high[1] if high else _LAST_TIME)


_PAIRS = {
    "StudyDate": "StudyTime",
    "SeriesDate": "SeriesTime",
    "AcquisitionDate": "AcquisitionTime",
    "PerformedProcedureStepStartDate": "PerformedProcedureStepStartTime",
}


def _spans(texts: Mapping[str, str]) -> Iterator[Span]:
    """Of each pair in which date and time are both given (PS3.4 C.2.2.2.5)."""
    for date_keyword, time_keyword in _PAIRS.items():
        if date_keyword in texts and time_keyword in texts:
            dates, times = _date_range(texts[date_keyword]), _time_range(texts[time_keyword])
            yield Span(date_keyword, time_keyword, (dates[0], times[0]), (dates[1], times[1]))
