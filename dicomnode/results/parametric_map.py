"""Parametric map (PS3.3 A.75): a heat map's values on the source's own grid, slice by slice.

highdicom builds all around the pixels from a map of one pixel a slice; the pixels follow as a stream that reads the heat map
slice by slice when the file is written. A map of the whole volume in another type is never held. A test holds the bytes equal
to those of highdicom's own.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicomnode.domain.findings import Findings, HeatMap
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results.context import Context
from dicomnode.results.frames import frame_count, images_for_writers, name_own_objects
from dicomnode.results.making import say_body_part, series_arguments
from dicomnode.results.seg import pixel_measures
from dicomnode.results.source import Sources, restore_identity

# Bits Allocated is 16 for integer pixel data (PS3.3 C.8.32.2); the values are the heat map's own 0 to 255.
STORED = np.dtype("<u2")
HIGHEST = 255


class Frames(io.BufferedIOBase):
    """The heat map as Pixel Data: a stream that pydicom copies into the file, one slice in memory at a time.

    order: for each frame the slice that it shows, None for a frame of the source of which the volume has no slice.
    """

    def __init__(self, values: NDArray[np.uint8], order: Sequence[int | None]) -> None:
        self._values = values
        self._order = order
        self._place = 0
        self._frame_bytes = values[0].size * STORED.itemsize
        self._total = len(order) * self._frame_bytes
        self._shown = -1
        self._bytes = b""

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """In bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To a byte."""
        self._place = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._total}[whence] + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """At most the rest of the slice, so that no slice is put together with another."""
        if self._place >= self._total:
            return b""
        index, start = divmod(self._place, self._frame_bytes)
        if index != self._shown:
            self._bytes, self._shown = self._frame(self._order[index]), index
        end = self._frame_bytes if size is None or size < 0 else min(self._frame_bytes, start + size)
        self._place += end - start
        return self._bytes[start:end]

    def _frame(self, index: int | None) -> bytes:
        return bytes(self._frame_bytes) if index is None else self._values[index].astype(STORED).tobytes()


def build_parametric_maps(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """One map for each heat map; none for a projection or a volume without frame of reference: frames need a place."""
    if not isinstance(image, Volume) or not context.sources.frame_of_reference_uid:
        return []
    return [_map(context, one, image, number) for number, one in enumerate(findings.heatmaps, start=1)]


def _map(context: Context, heat_map: HeatMap, image: Volume, number: int) -> Any:
    sources = context.sources
    headers = images_for_writers(sources)
    with _of_one_pixel(headers):
        pixels = np.zeros((sum(map(frame_count, headers)), 1, 1), np.uint16)
        dataset = envelope(context, heat_map, image, pixels, number, headers)
    name_own_objects(dataset, sources)
    dataset.Rows, dataset.Columns = heat_map.values.shape[1:]
    dataset[0x7FE00010] = DataElement(0x7FE00010, "OW", Frames(heat_map.values, frame_order(dataset, sources)))
    return dataset


def frame_order(dataset: Dataset, sources: Sources) -> list[int | None]:
    """For each frame of a map the slice of the image that it shows: highdicom sorts frames by place."""
    keys = zip(sources.slice_headers, sources.frame_numbers, strict=True)
    slices = {(str(header.SOPInstanceUID), frame): index for index, (header, frame) in enumerate(keys)}
    return [slices.get(source_of(group)) for group in dataset.PerFrameFunctionalGroupsSequence]


def source_of(group: Dataset) -> tuple[str, int]:
    """(instance, frame number) that a frame was derived from."""
    item = group.DerivationImageSequence[0].SourceImageSequence[0]
    return str(item.ReferencedSOPInstanceUID), int(item.get("ReferencedFrameNumber") or 1)


@contextmanager
def _of_one_pixel(headers: Sequence[Dataset]) -> Iterator[None]:
    """Our working copies of the source's headers say for a while that an image is one pixel: highdicom wants them to agree."""
    sizes = [(int(header.Rows), int(header.Columns)) for header in headers]
    try:
        for header in headers:
            header.Rows = header.Columns = 1
        yield
    finally:
        for header, (rows, columns) in zip(headers, sizes, strict=True):
            header.Rows, header.Columns = rows, columns


def envelope(
    context: Context, heat_map: HeatMap, image: Volume, pixels: NDArray[np.uint16], number: int, headers: Sequence[Dataset]
) -> Any:
    """highdicom's map of these pixels, (frames, y, x) in the order of the frames of these headers."""
    dataset = hd.pm.ParametricMap(
        source_images=headers,
        pixel_array=pixels,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=heat_map.name[:16],
                lut_explanation=f"{heat_map.name}: {context.notice}"[:64],
                unit=codes.UCUM.NoUnits,
                value_range=(0, HIGHEST),
                slope=heat_map.scale,
                intercept=heat_map.minimum,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=128.0, window_width=256.0)],
        content_label="AI_MAP",
        content_description=context.description("PM"),
        content_creator_name="dicomnode^AI",
        pixel_measures=pixel_measures(context.sources, image),
        series_description=context.description("PM"),
        **series_arguments(context, ResultKind.PARAMETRIC_MAP, number),
    )
    restore_identity(dataset, context.sources, context.profile.character_set)
    say_body_part(dataset, context.sources)
    return dataset
