"""One series through one pipeline, with times: the part that the worker and `dicomnode infer` share."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydicom.misc import is_dicom

from dicomnode import imaging
from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.domain.results import ResultObject, ResultRequest

if TYPE_CHECKING:
    from dicomnode.engines import Pipeline


@dataclass(frozen=True, slots=True)
class Analysis:
    """What came of it. `image` is None where no volume or image could be made; then `outcome` is imaging's refusal."""

    image: Volume | Image2D | None
    outcome: Findings | Refusal
    timings_s: Mapping[str, float] = field(default_factory=dict)


def analyse(
    series: SeriesRef,
    pipeline: Callable[[], "Pipeline"],
    *,
    speed: Literal["exact", "fast"],
    allow_many_frames_of_reference: bool = False,
    others: Mapping[str, SeriesRef] | None = None,
    load: Callable[[SeriesRef], Volume | Image2D | Refusal] | None = None,
) -> Analysis:
    """Load, check, infer. The pipeline is asked for only when there is an image for it. Raises PipelineError.

    others: by role, the series that the pipeline reads together with this one. load: gives `series`, if somebody has it.
    """
    began = time.monotonic()
    image = load(series) if load else imaging.load(series, allow_many_frames_of_reference=allow_many_frames_of_reference)
    if isinstance(image, Refusal):
        return Analysis(None, image, {"decode": time.monotonic() - began})
    volumes: dict[str, Volume] = {}
    for role, one in (others or {}).items():
        loaded = imaging.load(one, allow_many_frames_of_reference=allow_many_frames_of_reference)
        if not isinstance(loaded, Volume):
            return Analysis(image, _role_refused(role, loaded), {"decode": time.monotonic() - began})
        volumes[role] = loaded
    timings = {"decode": time.monotonic() - began}
    outcome = pipeline().run(image, speed=speed, others=volumes)
    if isinstance(outcome, Findings):
        timings |= outcome.timings_s
    return Analysis(image, outcome, timings)


def _role_refused(role: str, loaded: Image2D | Refusal) -> Refusal:
    if isinstance(loaded, Image2D):
        loaded = Refusal(RefusalCode.UNSUPPORTED_CLASS, "it is a projection image, a volume expected", "correct [[inputs]]")
    return replace(loaded, message=f"the series read as {role}: {loaded.message}")


def build_results(
    analysis: Analysis, sources: Sequence[Path], request: ResultRequest, folder: Path, *, hold: bool = False
) -> tuple[tuple[ResultObject, ...], float]:
    """The objects in `folder`, checked against their sources, and the seconds that took.

    What fails a check raises ResultCheckFailed; with `hold` it is given all the same, marked as held with the reason.

    A refusal is said with what headers there are: stored files that were lost or damaged may be the very reason for it.
    Without any of them there is nobody to say it of, and no object.
    """
    from dicomnode import results

    began = time.monotonic()
    if isinstance(analysis.outcome, Refusal):
        sources = [path for path in sources if path.is_file() and is_dicom(path)]
        if not sources:
            return (), 0.0
    objects = results.build(analysis.outcome, analysis.image, sources, request, folder)
    try:
        results.verify(objects, analysis.outcome, analysis.image, sources)
    except ResultCheckFailed as error:
        if not hold:
            raise
        objects = tuple(replace(one, held=str(error)) for one in objects)
    return objects, time.monotonic() - began


def findings_summary(outcome: Findings | Refusal) -> dict[str, object]:
    """What `explain` and `infer` show of findings (DESIGN section 8); a refusal has none."""
    if isinstance(outcome, Refusal):
        return {"segments": [], "lesions": [], "classifications": []}
    segments = [segment for label_map in outcome.label_maps for segment in label_map.segments]
    return {
        "segments": [{"label": one.label, "volume_ml": one.volume_ml, "voxels": one.voxels} for one in segments],
        "lesions": [
            {
                "label": one.label,
                "tracking_id": one.tracking_id,
                "center_mm": list(one.center_mm),
                "volume_ml": one.volume_ml,
                "long_axis_mm": one.long_axis_mm,
                "short_axis_mm": one.short_axis_mm,
                "probability": one.probability,
            }
            for one in outcome.lesions
        ],
        "classifications": [
            {"name": one.name, "value": one.value, "probability": one.probability, "threshold": one.threshold}
            for one in outcome.classifications
        ],
        "warnings": list(outcome.warnings),
        "run": dict(outcome.run),
    }
