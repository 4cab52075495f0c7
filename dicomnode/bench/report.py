"""What a bench says: the document of `--json`, tables for people, and the figures part of docs/performance.md."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicomnode.bench.disk import file_system
from dicomnode.bench.measuring import OURS, Goal, Row


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not measured, and why."""

    case: str
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """One bench. `began` in seconds since 1970."""

    subject: str
    machine: Mapping[str, object]
    versions: Mapping[str, str | None]
    began: float
    seconds: float
    rows: tuple[Row, ...]
    ratios: Mapping[str, float]
    best_ratios: Mapping[str, float] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    profiles: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)
    command: str = ""

    @property
    def gate_holds(self) -> bool:
        """Whether the gate was measured, and every goal of it met."""
        gate = [goal.met for goal in self.goals if goal.gate]
        return bool(gate) and all(gate)

    def as_json(self) -> dict[str, object]:
        """The document, without its schema."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "command": self.command,
            "began": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
            "elapsed_s": round(self.seconds, 1),
            "rows": [row.as_json() for row in self.rows],
            "ratios": self.ratios,
            "best_ratios": self.best_ratios,
            "goals": [goal.as_json() for goal in self.goals],
            "gate": self.gate_holds,
            "left_out": [{"case": one.case, "subject": one.subject, "why": one.why} for one in self.left_out],
            "profiles": self.profiles,
            "notes": self.notes,
        }


def machine(folder: Path) -> dict[str, object]:
    """The machine, as far as it matters for figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": memory // 2**20,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file_system": file_system(folder),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


_SHOWN_SHARE = 0.03

# --- tables, of the document alone: the same for a bench that has just ended and for one that was kept as JSON

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def tables(document: Mapping[str, Any]) -> list[Table]:
    """Title, columns and cells of each table."""
    return [
        table
        for table in (_times(document), _others(document), _goals(document), _profiles(document), _left_out(document))
        if table[2]
    ]


def _times(document: Mapping[str, Any]) -> Table:
    cells = [
        (
            row["case"],
            row["subject"],
            f"{row['median']:.3f}",
            f"{row['best']:.3f}",
            *(_ratio(document, kind, row) for kind in ("ratios", "best_ratios")),
        )
        for row in document["rows"]
        if row["unit"] == "ms/image"
    ]
    columns = ("case", "subject", "ms/image, median", "best", "t(subject)/t(ours), medians", "best rounds")
    return "Times", columns, cells


def _ratio(document: Mapping[str, Any], kind: str, row: Mapping[str, Any]) -> str:
    value = document[kind].get(f"{row['case']}/{row['subject']}")
    return "1" if row["subject"] == OURS else "" if value is None else f"{value:.2f}"


def _others(document: Mapping[str, Any]) -> Table:
    cells = [
        (row["case"], row["subject"], f"{row['median']:.3g}", f"{row['best']:.3g}", row["unit"])
        for row in document["rows"]
        if row["unit"] != "ms/image"
    ]
    return "Other figures", ("case", "subject", "median", "best", "unit"), cells


def _goals(document: Mapping[str, Any]) -> Table:
    cells = [
        (
            f"{goal['goal']}{' (gate)' if goal['gate'] else ''}",
            f"{'≤' if goal['kind'] == 'at most' else '≥'} {goal['bound']:g}",
            "–" if goal["measured"] is None else _measured(goal),
            _verdict(goal),
        )
        for goal in document["goals"]
    ]
    return "Goals", ("goal", "bound", "measured", "verdict"), cells


def _measured(goal: Mapping[str, Any]) -> str:
    return f"{goal['measured']:.2f}" if goal["unit"] else f"{goal['measured']:.3f}"  # a Dice of 0.997 is not 1.00


def _verdict(goal: Mapping[str, Any]) -> str:
    if goal["measured"] is None:
        return "not measured"
    if not goal["applies"]:
        return "this disk is too slow for it to count"
    return "met" if goal["met"] else "not met"


def _profiles(document: Mapping[str, Any]) -> Table:
    cells = [
        (case, one["entry"], one["place"], f"{one['share']:.0%}")
        for case, places in document["profiles"].items()
        for one in places
        if one["share"] >= _SHOWN_SHARE
    ]
    return (
        "Where the time goes: lines of each thread, shares of the time in which images were sent",
        ("case", "thread", "line", "share"),
        cells,
    )


def _left_out(document: Mapping[str, Any]) -> Table:
    cells = [(one["case"], one["subject"], one["why"]) for one in document["left_out"]]
    return "Left out", ("case", "subject", "why"), cells


def headline(document: Mapping[str, Any]) -> str:
    """The machine, the versions and the command in one line each."""
    host, versions = document["machine"], document["versions"]
    first = (
        f"{host['cpu']}, {host['cores']} cores, {host['memory_mb'] / 1024:.0f} GB, {host['system']}, {host['file_system']}; "
        f"{document['began']}, {document['elapsed_s']:.0f} s, load {host['load_1min']:g}"
    )
    second = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    return "\n".join((first, second, *([f"`{document['command']}`"] if document["command"] else [])))


def figures(document: Mapping[str, Any]) -> str:
    """The tables as Markdown, for docs/performance.md."""
    parts = ["  \n".join(headline(document).splitlines())]
    for title, columns, cells in tables(document):
        lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
        lines += ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in cells]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
