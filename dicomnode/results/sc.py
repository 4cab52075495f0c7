"""Secondary captures (PS3.3 A.8): RGB, uncompressed, one frame each; the summary page first, then slices with findings."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.results import ResultKind
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.outlines import key_slice
from dicomnode.results.pages import PageText, summary_page
from dicomnode.results.pictures import slices_to_show, slices_with_findings
from dicomnode.results.slices import Look, sides_of, slice_picture, stack_of
from dicomnode.results.source import copy_body_part, copy_lossy_history, identity_arguments, restore_identity

DERIVATION = codes.cid7203.SpatiallyRelatedFramesExtractedFromTheVolume
PURPOSE = DicomCode("121322", "DCM", "Source image for image processing operation")
# Defined terms of Body Part Examined without sides (PS3.16 Annex L).
UNPAIRED_BODY_PARTS = frozenset(
    {"ABDOMEN", "ABDOMENPELVIS", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COCCYX", "CSPINE", "HEAD"}
    | {"HEADNECK", "HEART", "JAW", "LIVER", "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST", "PANCREAS", "PELVIS", "PROSTATE"}
    | {"SKULL", "SPINE", "SPLEEN", "STERNUM", "THYROID", "TSPINE", "UTERUS", "WHOLEBODY"}
)


def build_captures(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """Summary page, then one capture for each slice to show, in the order of the source's Instance Number."""
    sources = context.sources
    slices = len(stack_of(image))
    numbers = [sources.instance_number(index) for index in range(slices)]
    with_findings = slices_with_findings(findings, slices)
    shown = sorted(slices_to_show(findings, slices), key=lambda index: numbers[index])
    overlays = f"Overlays: {len(shown)} of {len(with_findings)} slices with findings." if shown else ""
    title = f"AI result: {context.model.name} {context.model.version}{_version(context)}"
    page = summary_page(image, findings, PageText(title, context.notice, numbers, overlays))
    key_slices = sorted({key_slice(findings, one) for one in findings.lesions}) or [slices // 2]
    captures = [make_capture(context, page, 1, [sources.slice_headers[index] for index in key_slices])]
    for place, index in enumerate(shown, start=1):
        caption = f"AI {context.model.name} {context.model.version}   image {numbers[index]}   overlay {place} of {len(shown)}"
        if len(shown) < len(with_findings):
            caption += f" ({len(with_findings)} slices with findings)"
        overlay = slice_picture(image, findings, index, Look(notice=context.notice, caption=caption))
        orientation = _patient_orientation(image, sources.slice_headers[index])
        captures.append(make_capture(context, overlay, place + 1, [sources.slice_headers[index]], orientation))
    return captures


def _version(context: Context) -> str:
    return f" (version {context.request.version})" if context.request.version > 1 else ""


def _patient_orientation(image: Volume | Image2D, header: Dataset) -> list[str]:
    """Patient Orientation (0020,0020) of a slice shown as stored: directions of rows and of columns."""
    if isinstance(image, Volume):
        right = sides_of(image.affine)[1]
        turned = image.affine[:, [0, 2, 1, 3]]  # columns in the place of rows
        return [right, sides_of(turned)[1]]
    return [str(one) for one in header.get("PatientOrientation") or []]


def make_capture(
    context: Context, picture: Image.Image, number: int, shown: Sequence[Dataset], orientation: Sequence[str] = ()
) -> Any:
    """One capture of one picture; `shown` are the headers of the source images that it was made from."""
    kind = ResultKind.SC
    dataset = hd.sc.SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=context.uid(kind, "series"),
        series_number=context.series_number(kind),
        sop_instance_uid=context.uid(kind, "instance", str(number)),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=equipment.software_versions(context.model),
        device_serial_number=equipment.device_serial_number(context.model),
        series_description=context.description("SC"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=equipment.contributing_equipment(context.model, context.moment, context.request.uid_root),
        **identity_arguments(context.sources),
    )
    restore_identity(dataset, context.sources)
    dataset.PatientOrientation = list(orientation)  # type 2C: a page has none
    # A workstation of ours drew it, nothing was filmed or scanned (PS3.3 C.8.6.1).
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    dataset.DerivationDescription = f"AI findings of {context.model.name} {context.model.version} drawn on source images"[:1024]
    dataset.DerivationCodeSequence = DicomSequence([hd.sr.CodedConcept.from_code(DERIVATION)])
    if shown:
        dataset.SourceImageSequence = DicomSequence([_source_item(one) for one in shown])
    copy_lossy_history(dataset, context.sources)
    copy_body_part(dataset, context.sources)
    body_part = str(dataset.get("BodyPartExamined", "")).upper()
    if body_part not in UNPAIRED_BODY_PARTS and "Laterality" not in dataset:
        # Type 2C in General Series for parts that have sides (PS3.3 C.7.3.1); empty says "unknown".
        dataset.Laterality = ""
    return dataset


def _source_item(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = DicomSequence([hd.sr.CodedConcept.from_code(PURPOSE)])
    return item
