"""Commands run inside the test process: the same code as the console script, without its second of start."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from dicomnode.cli.main import run
from dicomnode.phantom import small_thorax, write_study

PIPELINES = Path(__file__).parents[1] / "pipelines"


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; raises where there is none, or more than one."""
        return json.loads(self.out)

    @property
    def error(self) -> tuple[str, str]:
        """What and remedy of the one error line, which is the last on stderr."""
        line = self.err.splitlines()[-1]
        assert line.startswith("error: "), self.err
        what, dash, remedy = line.removeprefix("error: ").partition(" — ")
        assert dash, line
        assert remedy, line
        assert "Traceback" not in self.err
        return what, remedy


type_command = Callable[..., Answer]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type_command]:
    """`command("status", "--json")`; runs in an empty folder, without variables of a developer's own node."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("DICOMNODE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    root = logging.getLogger()
    kept = root.handlers[:], root.level

    def call(*words: str | Path) -> Answer:
        capfd.readouterr()
        code = run([str(word) for word in words])
        said = capfd.readouterr()
        return Answer(code, said.out, said.err)

    yield call
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
    root.handlers[:] = kept[0]
    root.setLevel(kept[1])
    structlog.reset_defaults()


@pytest.fixture
def site(command: type_command, tmp_path: Path) -> Path:
    """The settings file of a node that `init` made, with the test pipelines."""
    answer = command("init", tmp_path / "site", "--json")
    assert answer.code == 0, answer.err
    config = tmp_path / "site" / "dicomnode.toml"
    config.write_text(config.read_text().replace("folders = []", f'folders = ["{PIPELINES}"]'))
    return config


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 24 slices of a coarse phantom."""
    folder = tmp_path_factory.mktemp("study")
    write_study(small_thorax(3), folder)
    return folder
