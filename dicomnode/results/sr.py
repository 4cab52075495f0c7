"""The report on findings: TID 1500 Imaging Measurement Report (PS3.16), as IHE AI Results asks."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.seg_plan import plan
from dicomnode.results.sr_document import make_document, observer, procedure_reported
from dicomnode.results.sr_groups import Report, all_groups, key_slices
from dicomnode.results.sr_library import library, library_images
from dicomnode.results.sr_terms import COMMENT
from dicomnode.results.sr_text import text_report

QUALITATIVE_EVALUATIONS = DicomCode("C0034375", "UMLS", "Qualitative Evaluations")


def build_report(
    context: Context, findings: Findings, image: Volume | Image2D, built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """The report on findings. Where there is nothing to measure and nothing to state it is a text: never an empty TID 1500."""
    segmentations = tuple(built.get(ResultKind.SEG, ()))
    report = Report(context, findings, image, plan(context, findings, image), segmentations)
    groups = all_groups(report)
    if not groups:
        return [text_report(context, {"Findings": [_nothing(context, findings)]})]
    sources = context.sources
    key_headers = [sources.slice_headers[index] for index in key_slices(report)]
    images, library_note = library_images(sources.headers, key_headers, context.profile.library_images)
    content = hd.sr.MeasurementReport(
        observation_context=observer(context),
        procedure_reported=procedure_reported(context),
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    root = content[0].ContentSequence
    for item in library(images, own_frame_of_reference=bool(sources.received_frames_of_reference)):
        root.insert(len(root) - 1, item)  # before the measurements, as TID 1500 orders them
    # Statements carry the warnings in their own text; lesions, boxes and organs alone do not.
    warnings = () if findings.classifications else tuple(f"Note: {warning}." for warning in findings.warnings)
    notes = [note for note in (*warnings, report.plan.note, library_note) if note]
    if notes:
        root.append(_notes(notes))
    what = "SR display" if report.for_viewer else "SR"
    return [make_document(context, content, [*sources.headers, *segmentations], what)]


def _notes(notes: Sequence[str]) -> Any:
    """What the report cannot say in groups, in the container that TID 1500 has for evaluations without measurements."""
    container = hd.sr.ContainerContentItem(QUALITATIVE_EVALUATIONS, relationship_type="CONTAINS")
    container.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.TextContentItem(COMMENT, note, relationship_type="CONTAINS") for note in notes]
    )
    return container


def _nothing(context: Context, findings: Findings) -> str:
    notes = "".join(f" Note: {warning}." for warning in findings.warnings)
    return f"AI {context.model.name} {context.model.version} ran and reported no finding.{notes}"
