"""`python -m tests.fuzz [--cases N] [--sessions N] [--seed N]`: exit 0 if every case ended as it may, 1 if not."""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from tests.fuzz import live
from tests.fuzz.driver import Outcome, run
from tests.fuzz.targets import targets

# Shares of all cases: the readers that see most of what peers send, and that do most with it, get most.
SHARES = {"pdu": 0.4, "header": 0.3, "command": 0.15, "request": 0.15}
FAILURES = Path("fuzz-failures")


def main(arguments: list[str]) -> int:
    """The command."""
    options = _options(arguments)
    warnings.simplefilter("ignore")  # pydicom's, about every value that is wrong
    failures: list[str] = []
    total, seconds = 0, 0.0
    for name, target in targets().items():
        numbers = range(options.first, options.first + round(options.cases * SHARES[name]))
        outcome = run(name, target, numbers, options.seed, FAILURES)
        total, seconds = total + outcome.cases, seconds + outcome.seconds
        failures += outcome.failures
        _report(name, outcome, "cases")
    print(f"pure readers: {total} cases in {seconds:.0f} s, {total / max(seconds, 1e-9):.0f}/s", flush=True)
    if options.sessions:
        with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as folder:
            outcome = live.run(Path(folder), options.sessions, options.seed, FAILURES)
        failures += outcome.failures
        _report("live", outcome, "sessions")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


def _report(name: str, outcome: Outcome, unit: str) -> None:
    rate = outcome.cases / max(outcome.seconds, 1e-9)
    print(
        f"{name}: {outcome.cases} {unit}, {rate:.0f}/s, slowest {outcome.worst_s:.3f} s, memory +{outcome.grown_mb:.1f} MB",
        end="",
    )
    print(f", {len(outcome.failures)} failed; {dict(outcome.ends.most_common())}", flush=True)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=3_000, help="against a real receive process; 0: none")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one that failed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
