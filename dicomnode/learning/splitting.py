"""Who is left out of a training, and whom the weights learned from that it starts with: figures are worth nothing otherwise."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.domain.errors import PipelineError, UsageError
from dicomnode.learning.tables import read_plan, read_table

SPLIT = "left_out_by"  # key of a trained bundle's train.json: what decided which patients were left out
COLUMNS = "path, patient and label (the label of one of [[classes]]; several with ; between them)"
_UNKNOWN = (
    "whom the weights that this training began with learned from is not known: if patients left out here were among them, "
    "these figures are too good"
)
type_lines = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Base:
    """The weights that a training starts from. patients: whom they learned from; None where nobody knows."""

    patients: frozenset[str] | None = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """Patients that must not be left out."""
        return self.patients or frozenset()

    @property
    def doubt(self) -> dict[str, str]:
        """What stands beside the figures."""
        return {"doubt": _UNKNOWN} if self.patients is None else {}


def base_of(folder: Path, plan: Mapping[str, Any], after: frozenset[Path] = frozenset()) -> Base:
    """Of the bundle in `folder`: none, one that was trained here and whose table is still there, or one that nobody knows.

    after: bundles that began, one after the other, with this one; if one of them is named again, nobody knows.
    """
    if "base" not in plan:
        return Base(None) if "base_weights" in plan else Base()
    base, after = (folder / "configs" / str(plan["base"])).resolve(), after | {folder.resolve()}
    if base in after:
        return Base(None)
    try:
        its_plan = read_plan(base)
        _, lines = read_table(base, its_plan, COLUMNS)
    except (PipelineError, UsageError):
        return Base(None)
    before = base_of(base, its_plan, after)
    if its_plan.get(SPLIT) is None or its_plan[SPLIT] != split(lines, its_plan, int(its_plan[SPLIT]["seed"]), before):
        return Base(None)
    learned = frozenset(line["patient"] for line in lines) - left_out(lines, its_plan, int(its_plan[SPLIT]["seed"]), before)
    return Base(None if before.patients is None else learned | before.patients)


def left_out(lines: type_lines, plan: Mapping[str, Any], seed: int, base: Base) -> frozenset[str]:
    """So many of the patients of each label, at least one: images of one patient never stand on both sides.

    Nor does a patient from whom the base learned. Raises UsageError where all patients of a label are such.
    """
    groups: dict[str, list[str]] = {}
    for line in lines:
        if all(line["patient"] not in group for group in groups.values()):
            groups.setdefault(line["label"], []).append(line["patient"])
    rng = np.random.default_rng((seed, 5))
    chosen: set[str] = set()
    for label in sorted(groups):
        group = sorted(groups[label])
        may = [one for one in rng.permutation(group).tolist() if one not in base.known]
        if not may:
            raise UsageError(
                f"the base learned from every patient of {label or 'no class'}: none is left to measure on",
                "name patients in the table that the base has not seen",
            )
        chosen.update(may[: max(1, round(_share(plan) * len(group)))])
    return frozenset(chosen)


def split(lines: type_lines, plan: Mapping[str, Any], seed: int, base: Base) -> dict[str, Any]:
    """All that decides who is left out; of the patients no more than one digest of all."""
    cases = json.dumps([(line["patient"], line["label"]) for line in lines]).encode()
    decided = {"seed": seed, "share": _share(plan), "cases_sha256": hashlib.sha256(cases).hexdigest()}
    shared = sorted(base.known & {line["patient"] for line in lines})
    return {**decided, "of_the_base_sha256": hashlib.sha256(json.dumps(shared).encode()).hexdigest()} if shared else decided


def _share(plan: Mapping[str, Any]) -> float:
    return float(plan.get("left_out", 0.25))
