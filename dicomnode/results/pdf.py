"""Encapsulated PDF (PS3.3 A.45.1) of the summary page, for archives and viewers that show documents."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EncapsulatedPDFStorage

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.making import series_arguments
from dicomnode.results.sc import make_summary
from dicomnode.results.source import identity_arguments, restore_identity

A4_WIDTH_INCHES = 8.27


def build_document(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """One document of one page."""
    page, shown = make_summary(context, findings, image)
    title = f"AI result: {context.model.name} {context.model.version}"
    arguments = series_arguments(context, ResultKind.PDF)
    equipment = arguments.pop("contributing_equipment")
    dataset = hd.SOPClass(
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        series_description=context.description("PDF"),
        **arguments,
        **identity_arguments(context.sources),
    )
    dataset.ContributingEquipmentSequence = DicomSequence(equipment)
    restore_identity(dataset, context.sources, context.profile.character_set)
    dataset.ConversionType = "WSD"
    dataset.ContentDate, dataset.ContentTime = context.moment.strftime("%Y%m%d"), context.moment.strftime("%H%M%S")
    dataset.AcquisitionDateTime = ""  # type 2: what the images say, this page does not
    dataset.BurnedInAnnotation = "YES" if context.request.draw_identity else "NO"
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = DicomSequence([hd.sr.CodedConcept("18748-4", "LN", "Diagnostic imaging report")])
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.SourceInstanceSequence = DicomSequence([_reference(one) for one in shown])
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    content = pdf_of(page, title, context)
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return [dataset]


def pdf_of(page: Image.Image, title: str, context: Context) -> bytes:
    """The page as PDF, A4 wide. Dates are the job's, so that the same page gives the same bytes."""
    written = io.BytesIO()
    moment = context.moment.timetuple()
    page.save(
        written,
        "PDF",
        resolution=page.width / A4_WIDTH_INCHES,
        title=title,
        creator=f"{context.model.name} {context.model.version}",
        producer="dicomnode",
        creationDate=moment,
        modDate=moment,
        quality=95,
        subsampling=0,
    )
    return written.getvalue()


def _reference(header: Any) -> Any:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item
