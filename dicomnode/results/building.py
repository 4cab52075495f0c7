"""From findings or a refusal to files: the order of work in one place."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.domain.results import ResultObject, ResultRequest
from dicomnode.results import files
from dicomnode.results.collector import collector_paused
from dicomnode.results.context import Context, make_context
from dicomnode.results.documents import Document
from dicomnode.results.fhir import build_bundle
from dicomnode.results.fonts import own_font
from dicomnode.results.gsps import build_presentation_states
from dicomnode.results.key_objects import build_key_objects
from dicomnode.results.not_run import build_not_run_capture, build_not_run_report
from dicomnode.results.outlines import outlines
from dicomnode.results.parametric_map import build_parametric_maps
from dicomnode.results.pdf import build_document
from dicomnode.results.sc import build_captures
from dicomnode.results.seg import build_segmentation
from dicomnode.results.sets import ResultSet, sets_of, with_place
from dicomnode.results.source import read_sources
from dicomnode.results.sr import build_report

# What one kind is made of: context (its `profile` says the form), findings, their image, the objects of the kinds before it
# in the same set (without pixels). Gives the objects of one series in the order of sending; none where nothing is to be made.
type_builder = Callable[[Context, Findings, Volume | Image2D, Mapping[ResultKind, Sequence[Any]]], Sequence[Any]]
BUILDERS: Mapping[ResultKind, type_builder] = {
    ResultKind.SEG: build_segmentation,
    ResultKind.SR: build_report,
    ResultKind.SC: build_captures,
    ResultKind.GSPS: build_presentation_states,
    ResultKind.KOS: build_key_objects,
    ResultKind.PARAMETRIC_MAP: build_parametric_maps,
    ResultKind.PDF: build_document,
    ResultKind.FHIR: build_bundle,
}
NOT_RUN_BUILDERS: Mapping[ResultKind, Callable[[Context, Refusal], Any]] = {
    ResultKind.SR: build_not_run_report,
    ResultKind.SC: build_not_run_capture,
}


@collector_paused()
def build(
    outcome: Findings | Refusal,
    image: Volume | Image2D | None,
    sources: Sequence[Path],
    request: ResultRequest,
    folder: Path,
) -> tuple[ResultObject, ...]:
    """Builds and writes the objects that the request asks for, for each of its profiles, in the order of sending.

    Profiles that agree in the form of a kind share its objects. A refusal gives the "AI not run" report and page; its image
    may be None. `sources` are the stored files of the series. Every file and the folder are synced when this returns. Raises
    ResultCheckFailed where a slice has no source file.
    """
    if image is None and isinstance(outcome, Findings):
        raise ValueError("findings need the image in which they were found")
    read = read_sources(sources, image)
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(str(header.SOPInstanceUID) for header in read.headers)
    sets = sets_of(make_context(outcome, read, request))
    made: dict[tuple[object, ...], tuple[list[Any], list[ResultObject]]] = {}
    order = 0
    for kind in ResultKind:
        for one in sets:
            if kind not in one.context.kinds:
                continue
            key = (kind, one.context.form_of(kind))
            if key not in made:
                datasets = _datasets(kind, one, outcome, image)
                objects = [
                    _finish(one.context, kind, dataset, order + place, folder, names) for place, dataset in enumerate(datasets)
                ]
                order += len(objects)
                made[key] = datasets, objects
            one.datasets[kind], one.objects[kind] = made[key]
    files.sync_folder(folder)
    return with_place(sets)


def _datasets(kind: ResultKind, one: ResultSet, outcome: Findings | Refusal, image: Volume | Image2D | None) -> list[Any]:
    if isinstance(outcome, Refusal):
        make = NOT_RUN_BUILDERS.get(kind)
        return [] if make is None else [make(one.context, outcome)]
    assert image is not None  # noqa: S101 - `build` refuses findings without
    builder = BUILDERS.get(kind)
    return [] if builder is None else list(builder(one.context, outcome, image, one.datasets))


def _finish(
    context: Context, kind: ResultKind, dataset: Any, order: int, folder: Path, sources: tuple[str, ...]
) -> ResultObject:
    if isinstance(dataset, Document):
        return files.write_document(dataset, context.sources.study_instance_uid, kind, order, folder, sources)
    files.stamp(dataset, context.moment, lambda name: context.uid(kind, name))
    written = files.write(dataset, kind, order, folder, sources)
    if "PixelData" in dataset:
        del dataset.PixelData  # later kinds of the set name it; nobody needs its pixels any more
    return written


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
    own_font(14)
