"""Grayscale softcopy presentation state (PS3.3 A.33.1): the curves of the captures as vectors over the source's own pixels.

One state refers to images of one modality LUT (PS3.3 C.11.8): where rescaling differs between slices (PET), there is one for
each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.graphics import Graphic, GraphicKind, graphics_of
from dicomnode.results.making import say_body_part, series_arguments
from dicomnode.results.pictures import slices_with_findings
from dicomnode.results.slices import stack_of, window_of
from dicomnode.results.source import restore_identity

CONTENT_LABEL = "AI_FINDINGS"  # CS, 16 characters
# Graphic Data (0070,0022) is FL with a length of 16 bits in Explicit VR: 8191 points at most.
MOST_POINTS = 4000
NOTICE_BOX = (0.05, 0.93, 0.95, 0.97)  # shares of the displayed area: left, top, right, bottom
LAYER_NAMES = {GraphicKind.ORGAN: "AI_SEGMENTS", GraphicKind.LESION: "AI_LESIONS", GraphicKind.BOX: "AI_BOXES"}
NOTICE_LAYER = "AI_NOTICE"


def build_presentation_states(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """One state for all slices with findings that share a rescaling; none where nothing is to be drawn."""
    drawn = {index: graphics_of(image, findings, index) for index in slices_with_findings(findings, len(stack_of(image)))}
    groups: dict[tuple[str, str], list[int]] = {}
    for index, graphics in drawn.items():
        if graphics:
            groups.setdefault(_rescaling(context, index), []).append(index)
    return [
        _state(context, image, {index: drawn[index] for index in indices}, number)
        for number, indices in enumerate(groups.values(), start=1)
    ]


def _rescaling(context: Context, index: int) -> tuple[str, str]:
    """Slope and intercept of a slice, wherever its object keeps them."""
    header = context.sources.slice_headers[index]
    groups = [header, *header.get("SharedFunctionalGroupsSequence", [])]
    frames = header.get("PerFrameFunctionalGroupsSequence", [])
    groups += frames[context.sources.frame_numbers[index] - 1 :][:1]
    for group in groups:
        for item in (group, *group.get("PixelValueTransformationSequence", [])):
            if item.get("RescaleSlope") is not None:
                return str(item.RescaleSlope), str(item.RescaleIntercept)
    return "", ""


def _state(context: Context, image: Volume | Image2D, drawn: dict[int, list[Graphic]], number: int) -> Any:
    layers, by_color = _layers(drawn)
    notice = hd.pr.GraphicLayer(NOTICE_LAYER, order=len(layers) + 1, description="Intended use")
    annotations = [
        annotation
        for index, graphics in drawn.items()
        for annotation in _annotations(context, index, graphics, by_color, notice)
    ]
    headers = list({id(one): one for one in (context.sources.slice_headers[index] for index in drawn)}.values())
    first = min(drawn)
    slope, intercept = _rescaling(context, first)
    dataset = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=headers,
        content_label=CONTENT_LABEL,
        content_description=context.description("GSPS"),
        content_creator_name="dicomnode^AI",
        concept_name=None,
        graphic_annotations=annotations,
        graphic_layers=[*layers, notice],
        modality_lut_transformation=_modality_lut(image, slope, intercept),
        voi_lut_transformations=_voi(image),
        presentation_lut_transformation=hd.PresentationLUTTransformation(presentation_lut_shape=_shape(headers[0])),
        series_description=context.description("GSPS"),
        **series_arguments(context, ResultKind.GSPS, number),
    )
    restore_identity(dataset, context.sources, context.profile.character_set)
    say_body_part(dataset, context.sources)
    return dataset


def _layers(drawn: dict[int, list[Graphic]]) -> tuple[list[Any], dict[tuple[GraphicKind, tuple[int, int, int]], Any]]:
    """A layer for each kind and colour: colour is a property of the layer (PS3.3 C.10.7)."""
    wanted = sorted({(one.kind, one.color_rgb) for graphics in drawn.values() for one in graphics})
    by_color = {}
    for order, (kind, color) in enumerate(wanted, start=1):
        same_kind = [one for one in wanted if one[0] is kind]
        suffix = f"_{same_kind.index((kind, color)) + 1}" if len(same_kind) > 1 else ""
        by_color[kind, color] = hd.pr.GraphicLayer(
            f"{LAYER_NAMES[kind]}{suffix}", order=order, display_color=hd.color.CIELabColor.from_rgb(*color)
        )
    return list(by_color.values()), by_color


def _annotations(context: Context, index: int, graphics: list[Graphic], by_color: dict[Any, Any], notice: Any) -> list[Any]:
    """Of one slice: one annotation a layer, and the intended use at the bottom of the displayed area."""
    header = context.sources.slice_headers[index]
    frame = context.sources.frame_numbers[index] if int(header.get("NumberOfFrames") or 1) > 1 else None
    sentence = hd.pr.TextObject(
        text_value=f"{context.model.name} {context.model.version}: {context.notice}",
        units=hd.pr.AnnotationUnitsValues.DISPLAY,
        bounding_box=NOTICE_BOX,
    )
    annotations = [_annotation(header, frame, notice, [], [sentence])]
    for (kind, color), layer in by_color.items():
        chosen = [one for one in graphics if (one.kind, one.color_rgb) == (kind, color)]
        if chosen:
            named = {one.name: one for one in reversed(chosen) if one.name}
            annotations.append(_annotation(header, frame, layer, [_curve(one) for one in chosen], [
                _text(one) for one in reversed(named.values())
            ]))  # fmt: skip
    return annotations


def _annotation(header: Dataset, frame: int | None, layer: Any, graphics: list[Any], texts: list[Any]) -> Any:
    return hd.pr.GraphicAnnotation(
        referenced_images=[header],
        referenced_frame_number=frame,
        graphic_layer=layer,
        graphic_objects=graphics or None,
        text_objects=texts or None,
    )


def _curve(graphic: Graphic) -> Any:
    points: NDArray[np.float64] = graphic.points
    if len(points) > MOST_POINTS:
        places = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
        points = points[places]
    return hd.pr.GraphicObject(
        graphic_type=hd.pr.GraphicTypeValues.POLYLINE,
        graphic_data=points,
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        tracking_id=graphic.tracking_id or None,
        tracking_uid=graphic.tracking_uid or None,
    )


def _text(graphic: Graphic) -> Any:
    """Anchored at the curve's rightmost point."""
    x, y = graphic.points[int(graphic.points[:, 0].argmax())]
    return hd.pr.TextObject(
        text_value=graphic.name,
        units=hd.pr.AnnotationUnitsValues.PIXEL,
        anchor_point=(float(x), float(y)),
        anchor_point_visible=True,
        tracking_id=graphic.tracking_id or None,
        tracking_uid=graphic.tracking_uid or None,
    )


def _modality_lut(image: Volume | Image2D, slope: str, intercept: str) -> Any | None:
    if not slope:
        return None
    kind = hd.RescaleTypeValues.HU if isinstance(image, Volume) and image.headers.modality == "CT" else "US"
    return hd.ModalityLUTTransformation(rescale_slope=float(slope), rescale_intercept=float(intercept), rescale_type=kind)


def _voi(image: Volume | Image2D) -> list[Any] | None:
    """The window of the captures; a projection image keeps its own, whose pixels ours are not where black and white change."""
    if not isinstance(image, Volume):
        return None
    center, width = window_of(image)
    return [hd.pr.SoftcopyVOILUTTransformation(window_center=center, window_width=width)]


def _shape(header: Dataset) -> Any:
    """A presentation state takes no notice of MONOCHROME1 (PS3.3 C.11.6.1.2)."""
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        return hd.PresentationLUTShapeValues.INVERSE
    return hd.PresentationLUTShapeValues.IDENTITY
