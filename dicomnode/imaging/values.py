"""Stored values → values with a meaning: modality LUT or rescale for slices, photometric meaning for radiographs.

Padding (PS3.3 C.7.5.1.1.2) is not measured. In CT volumes it stays what its rescaled value is, −3024 HU say, as long as that
cannot be taken for tissue: engines clip at −1024. Padding above 3071 HU (65535 in unsigned files) is set to −1024.
In radiographs padding takes the lowest measured value.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import HeaderSummary
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.stored import type_stored
from dicomnode.imaging.units import AIR_HU, HIGHEST_USUAL_HU

_INT16, _UINT16 = np.iinfo(np.int16), np.iinfo(np.uint16)


class DoesNotFit(Exception):
    """A rescaled value does not fit into int16; the volume is made again as float32."""


def are_integers(frame: Frame) -> bool:
    """Whether rescaling keeps integers integers."""
    return frame.instance.modality_lut is None and frame.slope.is_integer() and frame.intercept.is_integer()


def rescale_into(out: NDArray[np.int16] | NDArray[np.float32], stored: type_stored, frame: Frame) -> None:
    """Writes one slice's rescaled values into `out`, (y, x), int16 (raises DoesNotFit) or float32."""
    values = _without_bright_padding(stored, frame)
    if out.dtype == np.float32:
        out[...] = _modality_values(values, frame)
        return
    slope, intercept = int(frame.slope), int(frame.intercept)
    # Where whatever Bits Stored can hold fits, nobody needs to look what it is.
    looked_at = values is not stored or not _fits(_modality_range(frame))
    if looked_at and not _fits(sorted(slope * int(end) + intercept for end in (values.min(), values.max()))):
        raise DoesNotFit
    stored = values
    # What fits at the end comes out right modulo 2^16, whatever the steps between wrap to.
    wrapped = [np.array(value & 0xFFFF, np.uint16).view(np.int16) for value in (slope, intercept)]
    if slope == 1:
        np.add(stored, wrapped[1], out=out, dtype=np.int16, casting="unsafe")
    else:
        np.multiply(stored, wrapped[0], out=out, dtype=np.int16, casting="unsafe")
        np.add(out, wrapped[1], out=out)


def _fits(ends: Sequence[float]) -> bool:
    """Whether the lowest and the highest value are int16."""
    return ends[0] >= _INT16.min and ends[1] <= _INT16.max


def radiograph_values(stored: type_stored, frame: Frame) -> NDArray[np.uint16] | NDArray[np.float32]:
    """(y, x), high = bright: uint16 where the values are whole and not negative, else float32."""
    values = _modality_values(stored, frame)
    frame_format = frame.layout.frame_format
    if frame_format.photometric_interpretation == "MONOCHROME1":
        # Lowest is white there (PS3.3 C.7.6.3.1.2): mirrored within the range that the values can have.
        lowest, highest = _modality_range(frame)
        values = lowest + highest - values
    if frame.layout.padding is not None:
        padded = _is_padding(stored, frame.layout.padding)
        if padded.any() and not padded.all():
            values[padded] = values[~padded].min()
    whole = are_integers(frame) and values.min() >= 0 and values.max() <= _UINT16.max
    return values.astype(np.uint16) if whole else values.astype(np.float32)


def headers_of_bright_high(frame: Frame) -> HeaderSummary:
    """The headers of a radiograph with its window mirrored as `radiograph_values` mirrors MONOCHROME1."""
    headers = frame.instance.headers
    center = headers.window_center
    if frame.layout.frame_format.photometric_interpretation != "MONOCHROME1" or center is None:
        return headers
    lowest, highest = _modality_range(frame)
    # LINEAR puts the middle of the window half a value below its centre (PS3.3 C.11.2.1.2.1).
    return replace(headers, window_center=lowest + highest - center + 1)


def _modality_values(stored: type_stored, frame: Frame) -> NDArray[np.float64]:
    if frame.instance.modality_lut is not None:
        first, table = frame.instance.modality_lut
        return table[np.clip(stored.astype(np.int64) - first, 0, table.size - 1)].astype(np.float64)
    return stored * np.float64(frame.slope) + frame.intercept


def _modality_range(frame: Frame) -> tuple[float, float]:
    if frame.instance.modality_lut is not None:
        table = frame.instance.modality_lut[1]
        return float(table.min()), float(table.max())
    frame_format = frame.layout.frame_format
    lowest = -(1 << (frame_format.bits_stored - 1)) if frame_format.signed else 0
    ends = sorted(frame.slope * end + frame.intercept for end in (lowest, lowest + (1 << frame_format.bits_stored) - 1))
    return ends[0], ends[1]


def _is_padding(stored: type_stored, padding: tuple[int, int]) -> NDArray[np.bool_]:
    # As 64-bit integers: a padding value may lie outside the range of the stored type.
    lowest, highest = (np.int64(value) for value in padding)
    return (stored >= lowest) & (stored <= highest)


def _without_bright_padding(stored: type_stored, frame: Frame) -> Any:
    padding = frame.layout.padding
    if padding is None or frame.instance.headers.modality != "CT" or frame.instance.modality_lut is not None:
        return stored
    if max(frame.slope * value + frame.intercept for value in padding) <= HIGHEST_USUAL_HU:
        return stored
    stored = stored.astype(np.int32)
    stored[_is_padding(stored, padding)] = round((AIR_HU - frame.intercept) / frame.slope)
    return stored
