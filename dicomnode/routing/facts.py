"""What routing must know of pipelines, and what one sweep reports."""

from dataclasses import dataclass

from dicomnode.domain.routes import InputRole


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
