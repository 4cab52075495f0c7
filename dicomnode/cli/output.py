"""What commands print: one JSON document, or text and tables for people."""

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path

from dicomnode.domain.errors import DicomNodeError, ExitCode


def print_json(command: str, payload: Mapping[str, object]) -> None:
    """The one document of `--json`, its schema first."""
    document = {"schema": f"dicomnode.{command}/1", **payload}
    sys.stdout.write(json.dumps(_plain(document), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    """JSON's own types; what JSON cannot say (NaN, infinity) becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def say(text: str = "") -> None:
    """One line for people, on stdout."""
    sys.stdout.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table for people, on stdout; as wide as it needs to be where no terminal limits it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(shown)


def print_error(error: DicomNodeError | str, remedy: str = "") -> None:
    """`error: what — what to do`, one line on stderr."""
    text = f"{error} — {remedy}" if remedy else str(error)
    sys.stderr.write(f"error: {' '.join(text.split())}\n")
    sys.stderr.flush()


def error_document(what: str, remedy: str, exit_code: ExitCode) -> dict[str, object]:
    """What `--json` gives where a command could not answer."""
    return {"ok": False, "error": what, "remedy": remedy, "exit_code": int(exit_code)}


@contextmanager
def only_the_document_on_stdout() -> Iterator[None]:
    """Libraries that print, even from C, print to stderr meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
