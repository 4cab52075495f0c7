"""Where the time of our receive role goes: its threads' lines, as shares of the time in which images were sent."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

_IDLE = 0.98  # a thread that stands in one line for so much of its time waits there
_LEAST = 0.01

type_samples = Sequence[tuple[int, str, str, int]]


def shares(samples: type_samples) -> list[dict[str, object]]:
    """{entry, place, share} of each busy entry of threads, the largest first; `share` is of all samples of that entry.

    samples: (thread, entry, place, count). Threads that only waited are left out.
    """
    by_thread: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for thread, entry, place, count in samples:
        by_thread[thread, entry][place] += count
    busy: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, entry), places in by_thread.items():
        if entry and max(places.values()) <= _IDLE * places.total():
            busy[entry] += places
    return [
        {"entry": entry, "place": place, "share": round(count / places.total(), 3)}
        for entry, places in busy.items()
        for place, count in places.most_common()
        if count >= _LEAST * places.total()
    ]


def read(path: Path) -> list[dict[str, object]]:
    """The shares in a file that `sampling.py` wrote."""
    return shares([(thread, entry, place, count) for thread, entry, place, count in json.loads(path.read_text())])
