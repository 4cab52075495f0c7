"""Progress of several processes where there is no terminal: a line for each file that is done, and for each failure at once."""

from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest

_MOST_LINES, _WIDEST = 12, 300


class FileByFile:
    """Takes the place of pytest's row of dots, which says neither where the run is nor what takes long."""

    def __init__(self, terminal: Any, config: pytest.Config) -> None:
        self._terminal, self._config = terminal, config
        self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._seconds: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._running = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self) -> Generator[None, None, None]:
        self._running = True
        try:
            yield
        finally:
            self._running = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> Generator[None, Any, Any]:
        category, letter, word = yield
        if not self._running:  # the summary asks, too
            return category, letter, word
        if letter or word:
            self._outcomes[_file(report.nodeid)][category] += 1
        self._seconds[_file(report.nodeid)] += report.duration
        if report.failed:
            self._terminal.write_line(f"{category.upper()} {report.nodeid}")
            for line in _why(str(report.longrepr)):
                self._terminal.write_line(f"      {line}")
        return category, "", ""

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if not self._expected:
            tests = self._config.pluginmanager.get_plugin("dsession").sched.collection or ()
            self._expected.update(map(_file, tests))
        file = _file(nodeid)
        self._ended[file] += 1
        if self._ended[file] == self._expected[file]:
            share = self._ended.total() / self._expected.total()
            said = ", ".join(f"{count} {outcome}" for outcome, count in self._outcomes[file].items())
            self._terminal.write_line(f"{share:4.0%}  {file}: {said} in {self._seconds[file]:.0f} s")


def _why(text: str) -> list[str]:
    """What a failure's long text says was wrong; the whole of it comes at the end of a run, if that is reached."""
    said = [line[:_WIDEST] for line in text.splitlines() if line.startswith("E ")]
    return said[:_MOST_LINES] if said else [line[:_WIDEST] for line in text.splitlines()[-_MOST_LINES:]]


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if config.pluginmanager.has_plugin("dsession") and terminal is not None and not terminal.isatty:
        config.pluginmanager.register(FileByFile(terminal, config))
