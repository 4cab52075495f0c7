"""A series' compressed slices are decoded while its headers are still read: else one processor waits for the other.

Where a slice lies is not known before all headers are: the first two say which way the files run, and slices that come in
another order are put right at the end. Whatever is not one plain stack of single images is left to the ordinary way.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from dicomnode.imaging import apart, geometry
from dicomnode.imaging.classes import VOLUME_CLASSES
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame, Instance
from dicomnode.imaging.part10 import is_encapsulated
from dicomnode.imaging.slices import type_failures, type_volume_pixels
from dicomnode.imaging.stacking import MAXIMUM_SLICES, MAXIMUM_VOXELS
from dicomnode.imaging.stored import demand_plausible, is_decodable
from dicomnode.imaging.values import DoesNotFit, are_integers

_WORTHWHILE = 8  # slices


class Ahead:
    """Takes frames in the order in which their headers are read, and gives their volume if they were one plain stack."""

    def __init__(self, images: int, workers: int) -> None:
        self._images, self._workers = images, workers
        self._frames: list[Frame] = []
        self._slots: dict[int, int] = {}
        self._upward = True
        self._advance: apart.Advance | None = None
        self._given_up = not _WORTHWHILE <= images <= MAXIMUM_SLICES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()

    def take(self, instance: Instance, planes: Sequence[Frame]) -> None:
        """What the next header said."""
        if self._given_up:
            return
        if len(planes) != 1 or not self._goes_on(instance, planes[0]):
            self.give_up()
            return
        self._frames.append(planes[0])
        if len(self._frames) == 2:
            self._begin()
        elif self._advance is not None:
            self._add(len(self._frames) - 1)

    def give_up(self) -> None:
        """The ordinary way will decide; the decoding process is free again."""
        self._given_up = True
        if self._advance is not None:
            self._advance.close()
            self._advance = None

    def volume(self, frames: Sequence[Frame]) -> tuple[type_volume_pixels, type_failures] | None:
        """(z, y, x) int16, slice z from `frames[z]`, and which of them cannot be decoded; None: this way is not theirs.

        Raises ResourceExhausted.
        """
        slots = [self._slots.get(id(frame)) for frame in frames]
        if self._advance is None or len(self._frames) < self._images or None in slots:
            return None
        advance, self._advance, self._given_up = self._advance, None, True
        try:
            pixels, failures = advance.finish()
        except DoesNotFit:
            return None
        order = [slot for slot in slots if slot is not None]
        place = {slot: z for z, slot in enumerate(order)}
        concerned = [(place[slot], why) for slot, why in failures if slot in place]
        if order == list(range(len(pixels))) or concerned:
            return pixels, concerned
        return pixels[order], concerned

    def _goes_on(self, instance: Instance, frame: Frame) -> bool:
        """Whether this is one more slice of a stack like the first."""
        layout = frame.layout
        if frame.ref.sop_class_uid not in VOLUME_CLASSES or not is_encapsulated(layout.transfer_syntax_uid):
            return False
        size, first = layout.frame_format, (self._frames or [frame])[0].layout.frame_format
        if (size.rows, size.columns) != (first.rows, first.columns) or size.samples != 1 or not is_decodable(layout):
            return False
        if not size.photometric_interpretation.startswith("MONOCHROME") or not are_integers(frame):
            return False
        try:
            demand_plausible(instance)
        except CorruptPixels:
            return False
        return frame.position is not None and frame.orientation is not None

    def _begin(self) -> None:
        size = self._frames[0].layout.frame_format
        shape = (self._images, size.rows, size.columns)
        if np.prod(shape) > MAXIMUM_VOXELS:
            self.give_up()
            return
        first, second = self._frames
        self._upward = self._along(second, first) >= self._along(first, first)
        self._advance = apart.Advance(shape, self._workers)
        for number in range(2):
            self._add(number)

    @staticmethod
    def _along(frame: Frame, first: Frame) -> float:
        """mm along the normal of the first slice."""
        if frame.position is None or first.orientation is None:  # said for the type checker; _goes_on holds it
            return 0.0
        return float(frame.position @ geometry.normal_of(first.orientation))

    def _add(self, number: int) -> None:
        frame = self._frames[number]
        slot = number if self._upward else self._images - 1 - number
        self._slots[id(frame)] = slot
        if self._advance is not None:
            self._advance.add(slot, frame)
