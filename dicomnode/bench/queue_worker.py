"""A process that claims and finishes jobs: `python -m dicomnode.bench.queue_worker URL NAME`. Begins at a line on stdin.

Says in one JSON line how many milliseconds each claim took.
"""

import json
import sys
import time

from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry


def main(url: str, name: str) -> None:
    """Until nothing is left."""
    registry = Registry(url)
    registry.status_counts()  # what a connection costs at first is not a claim's
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    took_ms = []
    while True:
        began = time.perf_counter()
        job = registry.claim_job(name, 60)
        took_ms.append((time.perf_counter() - began) * 1000)
        if job is None:
            break
        registry.finish_job(job, JobEvent.FINISHED)
    registry.close()
    print(json.dumps(took_ms[:-1]), flush=True)  # noqa: T201 - the last one found nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
