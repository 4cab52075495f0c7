"""Which of the given series are read together: the choice that routing makes in a node, made on files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dicomnode.domain.imaging import Refusal, SeriesRef

if TYPE_CHECKING:
    from dicomnode.engines.sidecar import Sidecar
    from dicomnode.registry import SeriesEvidence


@dataclass(frozen=True, slots=True)
class Together:
    """One run: the series that it answers on, by role the others that it reads, or why it cannot be."""

    series: SeriesRef
    others: Mapping[str, SeriesRef] = field(default_factory=dict)
    refusal: Refusal | None = None


def together(series: Sequence[SeriesRef], sidecar: "Sidecar") -> list[Together]:
    """One run for each series; for a pipeline that reads several together, one for each study."""
    if len(sidecar.roles) < 2:
        return [Together(one) for one in series]
    studies: dict[str, list[SeriesRef]] = {}
    for one in series:
        studies.setdefault(one.study_instance_uid, []).append(one)
    return [_of_study(of_one, sidecar) for of_one in studies.values()]


def _of_study(series: Sequence[SeriesRef], sidecar: "Sidecar") -> Together:
    from dicomnode import routing
    from dicomnode.domain.routes import InputRole

    roles = tuple(InputRole(one.name, one.match, one.derived) for one in sidecar.roles)
    needs = sidecar.input
    facts = routing.PipelineFacts(sidecar.name, modality=needs.modality, min_slices=needs.min_slices, inputs=roles)
    evidence = [_evidence(number, one) for number, one in enumerate(series)]
    choice = routing.choose_inputs([one for one in evidence if one.attributes["Modality"] == needs.modality], facts)
    if choice.best is None:
        return Together(series[0], refusal=routing.refusal(evidence, choice, sidecar.name))
    others = {role: series[one.series_id] for role, one in choice.others.items()}
    return Together(series[choice.best.series_id], others)


def _evidence(number: int, series: SeriesRef) -> "SeriesEvidence":
    """What the registry would know of it, from its first file."""
    import pydicom

    from dicomnode.domain.received import INDEXED_KEYWORDS
    from dicomnode.domain.states import SeriesState
    from dicomnode.registry import SeriesEvidence

    header = pydicom.dcmread(series.instances[0].path, stop_before_pixels=True, force=True)
    texts = {keyword: _text(header.get(keyword)) for keyword in INDEXED_KEYWORDS}
    now = datetime.now(UTC)
    return SeriesEvidence(
        series_id=number,
        key=f"series {texts['SeriesNumber'] or number + 1}",
        series_instance_uid=series.series_instance_uid,
        state=SeriesState.COMPLETE,
        generation=0,
        sop_class_uid=series.instances[0].sop_class_uid,
        attributes=texts,
        image_types=Counter({texts["ImageType"]: len(series.instances)}),
        instance_numbers=(),
        instances=len(series.instances),
        slices=sum(one.number_of_frames for one in series.instances),
        opened_at=now,
        last_arrival_at=now,
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "\\".join(str(one) for one in value) if type(value).__name__ == "MultiValue" else str(value)
