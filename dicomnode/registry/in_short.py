"""The first sentence of `explain`: how it stands, and whether somebody must do something. Made of nothing but its JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

type_json = Mapping[str, Any]

_THERE = frozenset({"sent", "confirmed"})
_ON_THEIR_WAY = frozenset({"waiting", "sending"})
_STOPPED = frozenset({"held", "rejected"})


def in_short(answer: type_json) -> str:
    """One sentence; the first that is true of what stops, what runs, what is done."""
    foreign = [one for one in answer["series"] if not one["ours"]]
    jobs = [job for one in answer["series"] for job in one["jobs"] if job["state"] not in ("superseded", "cancelled")]
    standing = {job["id"] for job in jobs}
    deliveries = [one for series in answer["series"] for one in series["deliveries"] if one["job"] in standing]
    looks = (_operator(answer, foreign, jobs, deliveries), _arriving(foreign), _working(jobs), _sending(deliveries))
    return f"In short: {next(filter(None, looks), None) or _ended(jobs, deliveries, foreign)}."


def _operator(
    answer: type_json, foreign: Sequence[type_json], jobs: Sequence[type_json], deliveries: Sequence[type_json]
) -> str:
    if answer["held"]:
        return "it waits for an operator, for the study is held"
    if held := [one["key"] for one in foreign if one["held"]]:
        return f"it waits for an operator, for {_listed(held)} {'is' if len(held) == 1 else 'are'} held"
    if stopped := [one for one in deliveries if one["state"] in _STOPPED]:
        to = _listed(dict.fromkeys(one["destination"] for one in stopped))
        return f"AI ran, and some of its results did not get to {to}: an operator is needed"
    if held := [job["id"] for job in jobs if job["state"] == "queued" and job["held"]]:
        return f"it waits for an operator, for {_listed(held)} may have stopped the node"
    if failed := [job["id"] for job in jobs if job["state"] == "failed"]:
        return f"AI did not run, for {_listed(failed)} failed: an operator is needed"
    return ""


def _arriving(foreign: Sequence[type_json]) -> str:
    return "images are still coming in or waited for; nothing is to be done" if _any(foreign, "arriving") else ""


def _working(jobs: Sequence[type_json]) -> str:
    if _any(jobs, "running"):
        return "AI is running; nothing is to be done"
    return "it waits for a free worker; nothing is to be done" if _any(jobs, "queued") else ""


def _sending(deliveries: Sequence[type_json]) -> str:
    waiting = [one for one in deliveries if one["state"] in _ON_THEIR_WAY]
    if not waiting:
        return ""
    failing = dict.fromkeys(one["destination"] for one in waiting if one["state"] == "waiting" and one["last_error"])
    if failing:
        return f"results are ready and do not get through to {_listed(failing)}; they are tried again by themselves"
    return f"results are on their way to {_listed(dict.fromkeys(one['destination'] for one in waiting))}"


def _ended(jobs: Sequence[type_json], deliveries: Sequence[type_json], foreign: Sequence[type_json]) -> str:
    there = dict.fromkeys(one["destination"] for one in deliveries if one["state"] in _THERE)
    if _any(jobs, "done"):
        return f"AI ran, and its results are at {_listed(there)}" if there else "AI ran, and nothing was sent"
    if _any(jobs, "refused"):
        return f"AI did not run{f', and {_listed(there)} was told so' if there else ''}"
    return "no AI ran on it" if foreign else "there is nothing that AI could run on"


def _any(rows: Sequence[type_json], state: str) -> bool:
    return any(one["state"] == state for one in rows)


def _listed(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
