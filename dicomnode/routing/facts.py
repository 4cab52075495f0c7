"""What routing must know of pipelines and SOP classes, and what one sweep reports."""

from dataclasses import dataclass

from dicomnode.domain.equipment import DERIVED_SOP_CLASSES
from dicomnode.domain.routes import InputRole

# Families of Storage SOP Classes (PS3.4 B.5) that are never a pipeline's input, whatever a route's match says.
_NO_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{family}." for family in ("9", "11", "30", "66", "67", "68", "88", "104", "131", "200.2", "481")
)  # waveforms, presentation states, PM, raw/SEG/registration, RWV map, surfaces, SR, documents, protocols, …, RT
_CAPTURES = frozenset(uid for uid in DERIVED_SOP_CLASSES if uid.startswith("1.2.840.10008.5.1.4.1.1.7"))


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What a pipeline needs of a series. `min_slices`: 1 for projection images; a volume needs more."""

    name: str
    modality: str = ""
    min_slices: int = 8
    prefer_soft_kernel: bool = True
    inputs: tuple[InputRole, ...] = ()  # of a pipeline that reads several series together; the first is the one it answers on


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did, in keys that logs may hold."""

    studies_judged: int = 0
    series_completed: tuple[str, ...] = ()
    series_forced: tuple[str, ...] = ()
    jobs_created: tuple[str, ...] = ()
    studies_changed_meanwhile: int = 0
    studies_failed: tuple[tuple[str, Exception], ...] = ()  # an error of ours stopped their judgement


def is_no_image(sop_class_uid: str) -> bool:
    """Whether instances of this class are never a pipeline's input."""
    if sop_class_uid in _CAPTURES:
        return False
    return sop_class_uid in DERIVED_SOP_CLASSES or (sop_class_uid + ".").startswith(_NO_IMAGES)
