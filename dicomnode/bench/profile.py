"""Where the time of our receive role goes: its threads' lines, as shares of the time in which they had something to do."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

_IDLE = 0.98  # a thread that stands in one line for so much of its time waits there
_LEAST = 0.01


def shares(samples: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """{entry, place, share} of each busy thread entry, the largest first; `share` is of all samples of that entry."""
    by_entry: dict[str, dict[str, int]] = defaultdict(dict)
    for one in samples:
        by_entry[str(one["entry"])][str(one["place"])] = int(str(one["samples"]))
    found: list[dict[str, object]] = []
    for entry, places in by_entry.items():
        total = sum(places.values())
        if not entry or max(places.values()) > _IDLE * total:
            continue
        ordered = sorted(places.items(), key=lambda item: -item[1])
        found += [
            {"entry": entry, "place": place, "share": round(count / total, 3)}
            for place, count in ordered
            if count >= _LEAST * total
        ]
    return found


def read(path: Path) -> list[dict[str, object]]:
    """The shares in a file that `sampling.py` wrote."""
    return shares(json.loads(path.read_text()))
