"""From findings or a refusal to files: the order of work in one place."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.domain.results import ResultKind, ResultObject, ResultRequest
from dicomnode.results import files
from dicomnode.results.context import Context, make_context
from dicomnode.results.drawing import font
from dicomnode.results.not_run import build_not_run_capture, build_not_run_report
from dicomnode.results.outlines import outlines
from dicomnode.results.sc import build_captures
from dicomnode.results.seg import build_segmentation
from dicomnode.results.source import read_sources, restore_identity
from dicomnode.results.sr import build_report


def build(
    outcome: Findings | Refusal,
    image: Volume | Image2D | None,
    sources: Sequence[Path],
    request: ResultRequest,
    folder: Path,
) -> tuple[ResultObject, ...]:
    """Builds and writes the objects that the request asks for, in the order of sending: SEG, SR, SC.

    A refusal gives the "AI not run" report and page; its image may be None. `sources` are the stored files of the series.
    Every file and the folder are synced when this returns. Raises ResultCheckFailed where a slice has no source file.
    """
    read = read_sources(sources, image)
    context = make_context(outcome, read, request)
    if isinstance(outcome, Refusal):
        built = _not_run(context, outcome)
    elif image is None:
        raise ValueError("findings need the image in which they were found")
    else:
        built = _objects(context, outcome, image)
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(str(header.SOPInstanceUID) for header in read.headers)
    written = tuple(_finish(context, kind, dataset, order, folder, names) for order, (kind, dataset) in enumerate(built))
    files.sync_folder(folder)
    return written


def _objects(context: Context, findings: Findings, image: Volume | Image2D) -> Iterable[tuple[ResultKind, Any]]:
    kinds = context.request.kinds
    segmentation = build_segmentation(context, findings, image) if ResultKind.SEG in kinds else None
    if segmentation is not None:
        restore_identity(segmentation, context.sources)
        yield ResultKind.SEG, segmentation
    if ResultKind.SR in kinds:
        yield ResultKind.SR, build_report(context, findings, image, segmentation)
    if ResultKind.SC in kinds:
        for capture in build_captures(context, findings, image):
            yield ResultKind.SC, capture


def _not_run(context: Context, refusal: Refusal) -> Iterable[tuple[ResultKind, Any]]:
    if ResultKind.SR in context.request.kinds:
        yield ResultKind.SR, build_not_run_report(context, refusal)
    if ResultKind.SC in context.request.kinds:
        yield ResultKind.SC, build_not_run_capture(context, refusal)


def _finish(
    context: Context, kind: ResultKind, dataset: Any, order: int, folder: Path, sources: tuple[str, ...]
) -> ResultObject:
    files.stamp(dataset, context.moment, lambda name: context.uid(kind, name))
    return files.write(dataset, kind, order, folder, sources)


def warm_up() -> None:
    """Pays what the first object and the first outline of a process cost (attribute tables, scikit-image), about a second."""
    hd.SOPClass(
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        series_number=1,
        sop_instance_uid="2.25.3",
        sop_class_uid=SecondaryCaptureImageStorage,
        instance_number=1,
        modality="OT",
    )
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    outlines(mask)
    font(14)
