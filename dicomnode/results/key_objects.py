"""Key object selection (PS3.3 A.35.4, TID 2010): the images that are worth opening first."""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.making import series_arguments
from dicomnode.results.outlines import key_slices_of
from dicomnode.results.slices import stack_of
from dicomnode.results.source import restore_identity
from dicomnode.results.sr_document import device_context


def build_key_objects(
    context: Context, findings: Findings, image: Volume | Image2D, built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """One selection: the key images of lesions, boxes and heat maps, and the captures of the same set. None without either.

    A multi-frame source is named as a whole: a selection of frames is no part of TID 2010's image references in highdicom.
    """
    images = [context.sources.slice_headers[index] for index in key_slices_of(findings, len(stack_of(image)))]
    captures = list(built.get(ResultKind.SC, ()))
    referenced = [*_unique(images), *captures]
    if not referenced:
        return []
    content = hd.ko.KeyObjectSelection(
        document_title=codes.cid7010.OfInterest,
        referenced_objects=referenced,
        observer_device_context=device_context(context),
        description=f"{context.notice}. Key images of AI {context.model.name} {context.model.version}",
    )
    dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=referenced,
        content=content,
        series_description=context.description("KOS"),
        **series_arguments(context, ResultKind.KOS),
    )
    restore_identity(dataset, context.sources, context.profile.character_set)
    return [dataset]


def _unique(headers: list[Dataset]) -> list[Dataset]:
    return list({id(header): header for header in headers}.values())
