"""Secondary captures (PS3.3 A.8): RGB, uncompressed; the summary page first, then slices with findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import highdicom as hd
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode
from pydicom.tag import Tag
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind, ScForm
from dicomnode.results.context import Context
from dicomnode.results.equipment import facts_of
from dicomnode.results.fonts import ensure_drawable
from dicomnode.results.making import say_body_part, series_arguments
from dicomnode.results.orientation import patient_orientation
from dicomnode.results.outlines import key_slices_of
from dicomnode.results.pages import SIDE, PageText, summary_page
from dicomnode.results.pictures import slices_to_show, slices_with_findings
from dicomnode.results.slices import SHORTEST_SIDE, Look, slice_picture, stack_of
from dicomnode.results.source import copy_lossy_history, identity_arguments, restore_identity

DERIVATION = codes.cid7203.SpatiallyRelatedFramesExtractedFromTheVolume
PURPOSE = DicomCode("121322", "DCM", "Source image for image processing operation")
_LONGEST_LT = 10240  # PS3.5 6.2
PAGE_NUMBER_VECTOR = Tag("PageNumberVector")


def build_captures(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """Summary page, then a picture of each slice to show, in the order of the source's Instance Number.

    One object each, or by profile the frames of one object.
    """
    if context.request.draw_identity:
        ensure_drawable(identity_line(context))
    page, key_headers = make_summary(context, findings, image)
    overlays = _overlays(context, findings, image)
    if context.profile.sc_form is ScForm.MULTI_FRAME:
        return [_multi_frame(context, [Shown(page, key_headers), *overlays], findings.warnings)]
    remarks = findings.warnings
    captures = [make_capture(context, page, 1, key_headers, remarks=remarks)]
    for number, one in enumerate(overlays, start=2):
        captures.append(make_capture(context, one.picture, number, one.headers, one.orientation, remarks))
    return captures


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture, the headers of the source images that it was made from, and its Patient Orientation."""

    picture: Image.Image
    headers: Sequence[Dataset]
    orientation: Sequence[str] = ()


def make_summary(context: Context, findings: Findings, image: Volume | Image2D) -> tuple[Image.Image, list[Dataset]]:
    """The summary page, and the headers of the images that it shows."""
    sources = context.sources
    slices = len(stack_of(image))
    text = PageText(
        title=f"AI result: {context.model.name} {context.model.version}{_version(context)}",
        notice=context.notice,
        image_numbers=[sources.instance_number(index) for index in range(slices)],
        overlays=_count(context, image, len(slices_to_show(findings, slices)), len(slices_with_findings(findings, slices))),
        identity=identity_line(context) if context.request.draw_identity else "",
        orientation=tuple(patient_orientation(image, sources.slice_headers[0])) if isinstance(image, Image2D) else (),
    )
    key_slices = key_slices_of(findings, slices) or [slices // 2]
    headers = {id(one): one for one in (sources.slice_headers[index] for index in key_slices)}
    return summary_page(image, findings, text), list(headers.values())


def _overlays(context: Context, findings: Findings, image: Volume | Image2D) -> list[Shown]:
    sources, model = context.sources, context.model
    slices = len(stack_of(image))
    numbers = [sources.instance_number(index) for index in range(slices)]
    with_findings = len(slices_with_findings(findings, slices))
    shown = sorted(slices_to_show(findings, slices), key=lambda index: numbers[index])
    look = Look(
        notice=context.notice,
        identity=identity_line(context) if context.request.draw_identity else "",
        position=context.profile.text_position,
        shortest_side=SIDE if context.profile.sc_form is ScForm.MULTI_FRAME else SHORTEST_SIDE,
    )
    made = []
    for place, index in enumerate(shown, start=1):
        where = f"{_series(context)}image {numbers[index]}"
        caption = f"AI {model.name} {model.version}   {where}   overlay {place} of {len(shown)}"
        if len(shown) < with_findings:
            caption += f" ({with_findings} with findings)"
        header = sources.slice_headers[index]
        orientation = patient_orientation(image, header)
        picture = slice_picture(image, findings, index, replace(look, caption=caption, orientation=tuple(orientation)))
        made.append(Shown(picture, [header], orientation))
    return made


def _count(context: Context, image: Volume | Image2D, shown: int, with_findings: int) -> str:
    """Of which series the page speaks, and how much of it the captures show."""
    series, slices = _series(context), len(stack_of(image))
    what = "slice" if isinstance(image, Volume) else "image"
    said = [f"{series[:1].upper()}{series[1:]}{slices} {what}{'s' * (slices > 1)}."]
    if shown:
        said.append(f"Overlays: {shown} of {with_findings} {what}{'s' * (with_findings > 1)} with findings.")
    return " ".join(said)


def _series(context: Context) -> str:
    """The source's Series Number, by which viewers list it; a study may have several that look alike."""
    number = context.sources.slice_headers[0].get("SeriesNumber")
    return "" if number in (None, "") else f"series {number}, "


def identity_line(context: Context) -> str:
    """Patient and study as a person reads them; only drawn where the route asks for it."""
    identity = context.sources.identity
    groups = str(identity.get("PatientName") or "").split("=")
    name = "  ".join(" ".join(group.replace("^", " ").split()) for group in groups if group.strip("^ "))
    parts = (name, *(str(identity.get(keyword) or "") for keyword in ("PatientID", "PatientBirthDate", "StudyDate")))
    return "   ".join(part for part in parts if part)


def _version(context: Context) -> str:
    return f" (version {context.request.version})" if context.request.version > 1 else ""


def make_capture(
    context: Context,
    picture: Image.Image,
    number: int,
    shown: Sequence[Dataset],
    orientation: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> Any:
    """One capture of one picture; `shown` are the headers of the source images that it was made from; remarks: warnings."""
    dataset = hd.sc.SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_description=context.description("SC"),
        **series_arguments(context, ResultKind.SC, number),
        **identity_arguments(context.sources),
    )
    # The page has room for some notes; the object's own text holds all of them (PS3.3 C.7.6.1).
    sentences = (f"{context.notice}.", *facts_of(context.model), *(f"Note: {one}." for one in remarks))
    dataset.ImageComments = " ".join(sentences)[:_LONGEST_LT]
    restore_identity(dataset, context.sources, context.profile.character_set)
    dataset.PatientOrientation = list(orientation)  # type 2C: a page has none
    # A workstation of ours drew it, nothing was filmed or scanned (PS3.3 C.8.6.1).
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES" if context.request.draw_identity else "NO"
    dataset.DerivationDescription = f"AI findings of {context.model.name} {context.model.version} drawn on source images"[:1024]
    dataset.DerivationCodeSequence = DicomSequence([hd.sr.CodedConcept.from_code(DERIVATION)])
    if shown:
        dataset.SourceImageSequence = DicomSequence([_source_item(one) for one in shown])
    copy_lossy_history(dataset, context.sources)
    say_body_part(dataset, context.sources)
    return dataset


def _multi_frame(context: Context, pages: Sequence[Shown], remarks: Sequence[str]) -> Any:
    """Multi-frame True Color Secondary Capture (PS3.3 A.8.5): all pictures centred on black pages of one size."""
    width, height = (max(one.picture.size[axis] for one in pages) for axis in (0, 1))
    headers = list({id(header): header for one in pages for header in one.headers}.values())
    dataset = make_capture(context, _centred(pages[0].picture, width, height), 1, headers, remarks=remarks)
    dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.NumberOfFrames = len(pages)
    # Type 1C where there is more than one frame (PS3.3 C.8.6.3): frames follow one another as pages do.
    dataset.FrameIncrementPointer = PAGE_NUMBER_VECTOR
    dataset.PageNumberVector = [str(number) for number in range(1, len(pages) + 1)]
    frames = b"".join(_centred(one.picture, width, height).tobytes() for one in pages)
    dataset.PixelData = frames + b"\0" * (len(frames) % 2)
    return dataset


def _centred(picture: Image.Image, width: int, height: int) -> Image.Image:
    if picture.size == (width, height):
        return picture
    page = Image.new("RGB", (width, height))
    page.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return page


def _source_item(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = DicomSequence([hd.sr.CodedConcept.from_code(PURPOSE)])
    return item
