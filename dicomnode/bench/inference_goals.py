"""What `bench inference` is held to."""

from collections.abc import Iterator, Mapping, Sequence

from dicomnode.bench.inference_subject import NAIVE
from dicomnode.bench.measuring import OURS, Goal, Row, by_key

STEPS = ("decode", "preprocess", "forward", "postprocess")
GPU = "times the forward pass"
_EXACT, _FAST = "exact", "fast"
_MOST_MB = 1500.0
_REST_S_PER_100 = 1.0
_GPU_STEP = 1.25


def goals(rows: Sequence[Row], ratios: Mapping[str, float], notes: Mapping[str, object], *, slices: int) -> Iterator[Goal]:
    """Ratios and Dice to the script, everything but the forward pass, memory, and the whole step on a GPU."""
    found = by_key(rows)

    def measured(case: str, subject: str, unit: str) -> float | None:
        row = found.get((case, subject, unit))
        return None if row is None else row.median

    on_cpu = notes.get("device") == "cpu"
    fast = 8.0 if notes.get("bfloat16_units") == "AMX" or not on_cpu else 4.5
    for speed, ratio, dice in ((_EXACT, 3.0, 0.995), (_FAST, fast, 0.99)):
        yield Goal(speed, f"{speed}/{NAIVE}", ratio, ratios.get(f"{speed}/{NAIVE}"))
        yield Goal(speed, f"{speed}: Dice to the script", dice, measured(speed, OURS, "Dice to the script"), unit="")
        rest_s = measured(speed, OURS, "s but for forward")
        per_100 = None if rest_s is None else 100 * rest_s / slices
        yield Goal(
            speed,
            f"{speed}: s per 100 slices but for forward",
            _REST_S_PER_100,
            per_100,
            at_most=True,
            applies=on_cpu,
            unit="s",
        )
        yield Goal(
            speed, f"{speed}: MB for 300 slices", _MOST_MB, measured("300 slices", speed, "MB peak"), at_most=True, unit="MB"
        )
        yield Goal(speed, f"{speed} on a GPU: whole step / forward", _GPU_STEP, measured(speed, OURS, GPU), at_most=True)
