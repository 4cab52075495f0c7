"""Write the generated parts of the documentation, or check that they are current (`--check`).

A part stands between `<!-- generated: NAME … -->` and `<!-- end generated -->`.
"""

import re
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from dicomnode.domain.states import DELIVERY_TRANSITIONS, JOB_TRANSITIONS, SERIES_TRANSITIONS

DOCS = Path(__file__).parent


def _diagram(title: str, table: Mapping[tuple[StrEnum, StrEnum], StrEnum]) -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), then in table.items():
        arrows.setdefault((state.value, then.value), []).append(event.value)
    lines = [f"  {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    return "\n".join([f"**{title}**", "", "```mermaid", "stateDiagram-v2", *lines, "```"])


def states() -> str:
    """The three state diagrams, drawn from the tables."""
    return "\n\n".join(
        [
            _diagram("Series", SERIES_TRANSITIONS),
            _diagram("Job", JOB_TRANSITIONS),
            _diagram("Delivery", DELIVERY_TRANSITIONS),
        ]
    )


PARTS: dict[str, Callable[[], str]] = {"states": states}
_MARKED = re.compile(r"(<!-- generated: (\w+)[^>]*-->\n)(.*?)(<!-- end generated -->)", re.DOTALL)


def renewed(text: str) -> str:
    """`text` with every generated part as the code says it now."""
    return _MARKED.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[4]}", text)


def main() -> int:
    """Renew the pages; with --check only name those that are stale and return 1."""
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        if (new := renewed(text)) != text:
            stale.append(page.relative_to(DOCS))
            if "--check" not in sys.argv:
                page.write_text(new)
    for page in stale:
        print(f"{'stale' if '--check' in sys.argv else 'renewed'}: docs/{page}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
