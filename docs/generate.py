"""Write the generated parts of the documentation, or check that they are current (`--check`).

A part stands between `<!-- generated: NAME … -->` and `<!-- end generated -->`.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from dicomnode.bench import figures
from dicomnode.cli.settings_template import settings_template
from dicomnode.domain.alarms import alarms_table
from dicomnode.domain.query_statuses import query_conditions_table
from dicomnode.domain.states import DELIVERY_TRANSITIONS, JOB_TRANSITIONS, SERIES_TRANSITIONS, diagram
from dicomnode.domain.statuses import store_conditions_table

DOCS = Path(__file__).parent


def states() -> str:
    """The three state diagrams, drawn from the tables."""
    tables = {"Series": SERIES_TRANSITIONS, "Job": JOB_TRANSITIONS, "Delivery": DELIVERY_TRANSITIONS}
    return "\n\n".join(f"**{title}**\n\n```mermaid\n{diagram(table)}\n```" for title, table in tables.items())


def settings() -> str:
    """The settings file that `dicomnode init` writes."""
    return f"```toml\n{settings_template(Path('/var/lib/dicomnode'))}```"


def performance() -> str:
    """The figures that `dicomnode bench ingest --json` gave last."""
    kept = DOCS / "performance.json"
    return figures(json.loads(kept.read_text())) if kept.exists() else "Not measured yet."


def performance_decode() -> str:
    """The figures that `dicomnode bench decode --json` gave last."""
    kept = DOCS / "performance-decode.json"
    return figures(json.loads(kept.read_text())) if kept.exists() else "Not measured yet."


def performance_inference() -> str:
    """The figures that `dicomnode bench inference --json` gave last."""
    kept = DOCS / "performance-inference.json"
    return figures(json.loads(kept.read_text())) if kept.exists() else "Not measured yet."


def performance_queue() -> str:
    """The figures that `dicomnode bench queue --json` gave last."""
    kept = DOCS / "performance-queue.json"
    return figures(json.loads(kept.read_text())) if kept.exists() else "Not measured yet on an idle machine."


def performance_results() -> str:
    """The figures that `dicomnode bench results --json` gave last."""
    kept = DOCS / "performance-results.json"
    return figures(json.loads(kept.read_text())) if kept.exists() else "Not measured yet."


PARTS: dict[str, Callable[[], str]] = {
    "states": states,
    "settings": settings,
    "performance": performance,
    "performance_decode": performance_decode,
    "performance_inference": performance_inference,
    "performance_results": performance_results,
    "performance_queue": performance_queue,
    "statuses": store_conditions_table,
    "query_statuses": query_conditions_table,
    "alarms": alarms_table,
}
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
