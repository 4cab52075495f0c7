"""Benchmarks: how fast the node is beside others on this machine. One command a subject."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, loaded
from dicomnode.cli.output import only_the_document_on_stdout, print_error, print_json, say, table
from dicomnode.domain.errors import SettingsError

if TYPE_CHECKING:
    from dicomnode.bench import Report

MOST_S = 20 * 60.0  # of the default cases; on a slow disk rounds are left out

app = typer.Typer(help="Measure this machine, against peers where they are installed.", pretty_exceptions_enable=False)


@app.callback()
def bench() -> None:
    """Measure this machine, against peers where they are installed."""


@app.command()
def ingest(
    full: Annotated[bool, typer.Option("--full", help="All cases and subjects, seven rounds.")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 1 unless the gate holds.")] = False,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Rounds of each case; default 5 as time allows, 7 with --full.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only this case; may be repeated.")] = None,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="NAME", help="Only this receiver; may be repeated.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="On the disk in question; default: the data folder.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Receive images as fast as they come, every one durable; and have peers receive the same."""
    from dicomnode import logs
    from dicomnode.bench import IngestPlan
    from dicomnode.bench import ingest as measured
    from dicomnode.cli.progress import shares

    logs.configure("bench", level="error")
    plan = IngestPlan(
        folder=folder.absolute() if folder is not None else _data_folder(config),
        rounds=rounds or (7 if full else 5),
        most_s=None if rounds or full else MOST_S,
        full=full,
        cases=tuple(case or ()),
        subjects=tuple(subject or ()),
    )
    with only_the_document_on_stdout(), shares() as tell:
        report = measured(plan, tell)
    report = replace(report, command=_command(full=full, rounds=rounds, case=case or (), subject=subject or ()))
    _tell("ingest", report, as_json)
    if gate and not report.gate_holds:
        print_error("the gate does not hold", "the table of goals says which bound was missed or not measured")
        raise typer.Exit(1)


def _command(*, full: bool, rounds: int | None, case: Sequence[str], subject: Sequence[str]) -> str:
    """What decides the figures. Folders stay out: reports are handed on."""
    words = ["dicomnode bench ingest", *(["--full"] if full else []), *([f"--rounds {rounds}"] if rounds else [])]
    return " ".join((*words, *(f"--case {name}" for name in case), *(f"--subject {name}" for name in subject)))


def _data_folder(config: Path | None) -> Path:
    """Where the node keeps its data, if that may be written; else /var/tmp."""
    try:
        folder = loaded(config, required=config is not None).data_dir
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path("/var/tmp")  # noqa: S108 - on a disk, unlike /tmp
    except SettingsError:
        if config is not None:
            raise
        return Path("/var/tmp")  # noqa: S108


def _show(report: "Report") -> None:
    from dicomnode.bench.report import headline, tables

    document = report.as_json()
    say(headline(document))
    for title, columns, cells in tables(document):
        say()
        table(columns, cells, title=title)


@app.command()
def decode(
    full: Annotated[bool, typer.Option("--full", help="All plug-ins of pydicom that are installed, seven rounds.")] = False,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Rounds of each case, as time allows.")] = None,
    images: Annotated[int, typer.Option("--images", min=8, help="Slices of 512 × 512 in the series.")] = 100,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only this case; may be repeated.")] = None,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="NAME", help="Only this way to decode; may be repeated.")
    ] = None,
    config: ConfigOption = None,  # noqa: ARG001 - on every command; nothing of a node is measured
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """A CT series from files to a volume in each transfer syntax, beside pydicom one by one with its own plug-ins."""
    from dicomnode import logs
    from dicomnode.bench.decode import DecodePlan
    from dicomnode.bench.decode import decode as measured
    from dicomnode.cli.progress import shares

    logs.configure("bench", level="error")
    plan = DecodePlan(
        rounds=rounds or (7 if full else 5),
        full=full,
        cases=tuple(case or ()),
        subjects=tuple(subject or ()),
        images=images,
        most_s=None if rounds or full else MOST_S,
    )
    with only_the_document_on_stdout(), shares() as tell:
        report = measured(plan, tell)
    words = [*(["--full"] if full else []), *([f"--rounds {rounds}"] if rounds else []), f"--images {images}"]
    words += [*(f"--case {name}" for name in case or ()), *(f"--subject {name}" for name in subject or ())]
    report = replace(report, command=" ".join(("dicomnode bench decode", *words)))
    _tell("decode", report, as_json)


@app.command()
def inference(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of each subject, as time allows.")] = 5,
    slices: Annotated[int, typer.Option("--slices", min=8, help="Of the phantom series that is timed.")] = 100,
    memory_slices: Annotated[int, typer.Option("--memory-slices", min=0, help="Of the one for memory; 0: none.")] = 300,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="NAME", help="Only exact, fast or naive; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    config: ConfigOption = None,  # noqa: ARG001 - on every command; measured is what is shipped
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Chest CT from files to findings at both speeds, beside a naive MONAI script on the same files and weights."""
    from dicomnode import logs
    from dicomnode.bench.inference import InferencePlan
    from dicomnode.bench.inference import inference as measured
    from dicomnode.cli.progress import shares

    logs.configure("bench", level="error")
    plan = InferencePlan(rounds, slices, memory_slices, device=device, most_s=MOST_S, subjects=tuple(subject or ()))
    with only_the_document_on_stdout(), shares() as tell:
        report = measured(plan, tell)
    words = [f"--rounds {rounds}", f"--slices {slices}", f"--memory-slices {memory_slices}", f"--device {device}"]
    words += [f"--subject {name}" for name in subject or ()]
    report = replace(report, command=" ".join(("dicomnode bench inference", *words)))
    if as_json:
        print_json("bench.inference", report.as_json())
    else:
        _show(report)
        say("  ".join(f"{name}: {value}" for name, value in report.notes.items()))


def _tell(name: str, report: "Report", as_json: bool) -> None:
    if as_json:
        print_json(f"bench.{name}", report.as_json())
    else:
        _show(report)


def _require_goals(report: "Report") -> None:
    if not report.gate_holds:
        print_error("the goals are not met", "the table of goals says which; measure on an idle machine")
        raise typer.Exit(1)


@app.command()
def results(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of each case, after one that is not counted.")] = 5,
    slices: Annotated[int, typer.Option("--slices", min=8, help="Of the phantom CT; the goals are for 300.")] = 300,
    size: Annotated[int, typer.Option("--size", min=64, help="Rows and columns; the goals are for 512.")] = 512,
    case: Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only this case; may be repeated.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 1 unless the goals are met.")] = False,
    folder: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="On the disk in question.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Build and check what leaves the node, a worker being warm: time, processor time and memory of every kind."""
    from dicomnode import logs
    from dicomnode.bench.results import ResultsPlan
    from dicomnode.bench.results import results as measured
    from dicomnode.cli.progress import shares

    logs.configure("bench", level="error")
    where = folder.absolute() if folder is not None else _data_folder(config)
    plan = ResultsPlan(where, rounds, tuple(case or ()), slices, size)
    with only_the_document_on_stdout(), shares() as tell:
        report = measured(plan, tell)
    words = [
        f"--rounds {rounds}",
        *([f"--slices {slices}"] if slices != 300 else []),
        *(f"--case {one!r}" for one in case or ()),
    ]
    report = replace(report, command=" ".join(("dicomnode bench results", *words)))
    _tell("results", report, as_json)
    if gate:
        _require_goals(report)


@app.command()
def queue(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of each case.")] = 5,
    jobs: Annotated[int, typer.Option("--jobs", min=8, help="To be claimed in each round.")] = 400,
    processes: Annotated[int, typer.Option("--processes", min=1, help="That claim at once.")] = 4,
    database: Annotated[
        list[str] | None, typer.Option("--database", metavar="NAME", help="Only sqlite or postgresql; may be repeated.")
    ] = None,
    looks: Annotated[bool, typer.Option(help="Status and sweeps on the rows of 10,000 studies, too.")] = True,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 1 unless the goals are met.")] = False,
    folder: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="On the disk in question.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Claims by several processes at once, on SQLite and (where installed) PostgreSQL; status and sweeps on many rows."""
    from dicomnode import logs
    from dicomnode.bench.queue import QueuePlan
    from dicomnode.bench.queue import queue as measured
    from dicomnode.cli.progress import shares

    logs.configure("bench", level="error")
    where = folder.absolute() if folder is not None else _data_folder(config)
    plan = QueuePlan(where, rounds, tuple(database or ()), processes, jobs, looks)
    with only_the_document_on_stdout(), shares() as tell:
        report = measured(plan, tell)
    words = [
        f"--rounds {rounds}",
        f"--jobs {jobs}",
        f"--processes {processes}",
        *(f"--database {one}" for one in database or ()),
    ]
    report = replace(report, command=" ".join(("dicomnode bench queue", *words, *([] if looks else ["--no-looks"]))))
    _tell("queue", report, as_json)
    if gate:
        _require_goals(report)
