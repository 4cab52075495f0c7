"""Progress bars, on a terminal only, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar that one call moves on by one; silent where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def shares() -> Iterator[Callable[[str, float], None]]:
    """A bar for work that tells what it does and which share (0-1) is behind it; a line for each new task elsewhere."""
    if not sys.stderr.isatty():
        said: list[str] = []

        def line(what: str, _share: float) -> None:
            if what not in said[-1:]:
                said.append(what)
                print(what, file=sys.stderr, flush=True)  # noqa: T201

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
