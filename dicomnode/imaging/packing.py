"""Frames as the decoding process gets them: where the bytes lie and what they mean, in plain values, nothing of the patient."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.domain.imaging import HeaderSummary, InstanceRef
from dicomnode.imaging.codecs import FrameFormat
from dicomnode.imaging.headers import DISTINCTIONS, Frame, Instance, PixelLayout

# (formats, instances, frames): what many slices share is told once. The ends of a task are threads' and processes' time.
type_packed = tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[tuple[int, int, float, float]]]

_NO_DISTINCTIONS = dict.fromkeys(DISTINCTIONS, "")


def pack(frames: Sequence[Frame]) -> type_packed:
    """Plain values for `unpack` on the other side."""
    formats: dict[tuple[Any, ...], int] = {}
    instances: dict[int, int] = {}
    told: list[tuple[Any, ...]] = []
    for frame in frames:
        if id(frame.instance) not in instances:
            instances[id(frame.instance)] = len(told)
            told.append(_packed_instance(frame, formats))
    places = [(instances[id(frame.instance)], frame.frame_index, frame.slope, frame.intercept) for frame in frames]
    return list(formats), told, places


def _packed_instance(frame: Frame, formats: dict[tuple[Any, ...], int]) -> tuple[Any, ...]:
    layout, lut = frame.layout, frame.instance.modality_lut
    size = layout.frame_format
    kind = (
        (
            size.rows,
            size.columns,
            size.samples,
            size.bits_allocated,
            size.bits_stored,
            size.signed,
            size.photometric_interpretation,
        ),
        (layout.high_bit, layout.number_of_frames, layout.transfer_syntax_uid, layout.padding),
        frame.instance.headers.modality,
    )
    return (
        formats.setdefault(kind, len(formats)),
        str(frame.instance.path),
        layout.element_offset,
        layout.bytes_held,
        layout.extended_offsets,
        None if lut is None else (lut[0], lut[1].tobytes()),
    )


def unpack(packed: type_packed) -> tuple[Frame, ...]:
    """Frames that can be decoded and rescaled; they do not know where in the patient they lie, or whose they are."""
    formats, told, places = packed
    instances = [_unpacked_instance(one, formats) for one in told]
    return tuple(
        Frame(instances[place], index, None, None, None, slope, intercept, _NO_DISTINCTIONS)
        for place, index, slope, intercept in places
    )


def _unpacked_instance(told: tuple[Any, ...], formats: Sequence[tuple[Any, ...]]) -> Instance:
    kind, path, element_offset, bytes_held, extended_offsets, lut = told
    size, (high_bit, number_of_frames, transfer_syntax_uid, padding), modality = formats[kind]
    layout = PixelLayout(
        frame_format=FrameFormat(*size),
        high_bit=high_bit,
        number_of_frames=number_of_frames,
        transfer_syntax_uid=transfer_syntax_uid,
        element_offset=element_offset,
        bytes_held=bytes_held,
        extended_offsets=extended_offsets,
        padding=padding,
    )
    return Instance(
        ref=InstanceRef("", "", Path(path), number_of_frames),
        instance_number="",
        frame_of_reference_uid="",
        patient_identity_removed=False,
        units="",
        headers=HeaderSummary(modality),
        layout=layout,
        pixel_spacing=None,
        imager_pixel_spacing=None,
        spacing_between_slices_mm=None,
        modality_lut=None if lut is None else (lut[0], np.frombuffer(lut[1], np.float32)),
    )
