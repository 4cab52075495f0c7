"""The report on findings: TID 1500 Imaging Measurement Report (PS3.16), as IHE AI Results asks."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.sr_document import make_document, observer, procedure_reported
from dicomnode.results.sr_groups import Report, all_groups, key_slices
from dicomnode.results.sr_text import text_report

# What TID 1602 and the modality's descriptors need; highdicom raises AttributeError without them.
LIBRARY_KEYWORDS = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "FrameOfReferenceUID")


def build_report(
    context: Context, findings: Findings, image: Volume | Image2D, built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """The report on findings. Where there is nothing to measure and nothing to state it is a text: never an empty TID 1500."""
    segmentation = next(iter(built.get(ResultKind.SEG, ())), None)
    report = Report(context, findings, image, segmentation)
    groups = all_groups(report)
    if not groups:
        return [text_report(context, {"Findings": [_nothing(context, findings)]})]
    key_headers = [context.sources.slice_headers[index] for index in key_slices(report)]
    library = [header for header in _unique(key_headers) if all(keyword in header for keyword in LIBRARY_KEYWORDS)]
    content = hd.sr.MeasurementReport(
        observation_context=observer(context),
        procedure_reported=procedure_reported(context),
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
        referenced_images=library or None,
    )
    evidence = list(context.sources.headers) + ([segmentation] if segmentation is not None else [])
    return [make_document(context, content, evidence, "SR")]


def _nothing(context: Context, findings: Findings) -> str:
    notes = "".join(f" Note: {warning}." for warning in findings.warnings)
    return f"AI {context.model.name} {context.model.version} ran and reported no finding.{notes}"


def _unique(headers: list[Dataset]) -> list[Dataset]:
    return list({id(header): header for header in headers}.values())
