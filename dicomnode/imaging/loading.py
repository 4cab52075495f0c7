"""A series → `Volume`, `Image2D` or `Refusal`: headers, decision table, pixels, in this order."""

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dicomnode.domain.errors import ResourceExhausted
from dicomnode.domain.imaging import (
    Image2D,
    InstanceRef,
    Refusal,
    RefusalCode,
    SeriesRef,
    SpacingOrigin,
    Volume,
    read_only,
)
from dicomnode.imaging.ahead import Ahead
from dicomnode.imaging.classes import (
    PROJECTION_CLASSES,
    RADIOGRAPH_MODALITIES,
    SECONDARY_CAPTURE,
    VOLUME_CLASSES,
    VOLUME_MODALITIES,
    class_name,
)
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.decoding import decode_one, decode_slices, decoding_threads
from dicomnode.imaging.headers import Frame, Instance, read_frames
from dicomnode.imaging.part10 import NotDicom, UnreadableDicom
from dicomnode.imaging.refusing import SEND_AGAIN, Refused, count, names
from dicomnode.imaging.stacking import make_stack
from dicomnode.imaging.stored import demand_plausible, is_decodable
from dicomnode.imaging.units import unit_of
from dicomnode.imaging.values import headers_of_bright_high, radiograph_values

_SUPPORTED = VOLUME_CLASSES | PROJECTION_CLASSES | {SECONDARY_CAPTURE}


def load(
    series: SeriesRef, *, allow_many_frames_of_reference: bool = False, threads: int | None = None
) -> Volume | Image2D | Refusal:
    """What imaging makes of a series.

    CT, MR and PET (single-frame or enhanced) give a Volume; radiographs (CR, DX, MG, and secondary captures that say so) an
    Image2D; everything else, and every volume that is not one regular stack, a Refusal that names the instances and a remedy.
    Several Frame of Reference UIDs in one series are accepted where Patient Identity Removed is YES, or where allowed here.
    `threads` decode (default: one a processor, 8 at most).
    Raises ResourceExhausted when memory runs out; nothing else that the files' content could cause.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes values of the header in its warnings
        try:
            return _load(series, allow_many_frames_of_reference, threads)
        except Refused as refused:
            return refused.refusal
        except MemoryError as error:
            raise ResourceExhausted(
                "memory ran out while a series was loaded", "give the worker more memory or run fewer workers"
            ) from error


def _load(series: SeriesRef, allow_many: bool, threads: int | None) -> Volume | Image2D:
    _demand_classes(series.instances)
    workers = decoding_threads(threads)
    with Ahead(len(series.instances), workers) as ahead:
        instances, frames = _read_headers(series.instances, ahead)
        _demand_pixels(instances)
        _demand_plausible(instances)
        _demand_volume_or_radiograph(frames)
        if all(frame.ref.sop_class_uid in VOLUME_CLASSES for frame in frames):
            return _load_volume(series, frames, allow_many, workers, ahead)
    return _load_image(series, frames)


def _demand_classes(instances: Sequence[InstanceRef]) -> None:
    if not instances:
        raise Refused(RefusalCode.TOO_FEW, "the series has no instances", "Send the series again.")
    foreign = [ref for ref in instances if ref.sop_class_uid not in _SUPPORTED]
    if foreign:
        found = ", ".join(sorted({class_name(ref.sop_class_uid) for ref in foreign}))
        raise Refused(
            RefusalCode.UNSUPPORTED_CLASS,
            f"{count(len(foreign), 'object')} of {len(instances)} cannot be analysed as images: {found}",
            "Nothing needs to be done; send CT, MR or PET images or radiographs, in series without other objects.",
            sop_instance_uids=[ref.sop_instance_uid for ref in foreign],
        )


def _read_headers(refs: Sequence[InstanceRef], ahead: Ahead) -> tuple[list[Instance], list[Frame]]:
    instances: list[Instance] = []
    frames: list[Frame] = []
    failures: list[tuple[InstanceRef, str]] = []
    with _without_collection():
        for ref in refs:
            try:
                instance, planes = read_frames(ref)
            except (NotDicom, UnreadableDicom) as error:
                failures.append((ref, str(error)))
            except OSError as error:
                why = f"the file cannot be read ({type(error).__name__}); `dicomnode fsck` says what is missing"
                failures.append((ref, why))
            else:
                instances.append(instance)
                frames.extend(planes)
                ahead.take(instance, planes)
    if failures:
        raise Refused(
            RefusalCode.CORRUPT,
            f"{count(len(failures), 'header')} of {len(refs)} cannot be read: {failures[0][1]}",
            SEND_AGAIN,
            sop_instance_uids=[ref.sop_instance_uid for ref, _ in failures],
        )
    return instances, frames


@contextmanager
def _without_collection() -> Iterator[None]:
    """Headers are many small objects, none of them in a cycle: looking for cycles again and again is a third of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _demand_pixels(instances: Sequence[Instance]) -> None:
    without = [instance for instance in instances if instance.layout is None]
    if without:
        raise Refused(
            RefusalCode.NO_PIXELS,
            f"{count(len(without), 'image')} of {len(instances)} without pixel data",
            "Send the images with their pixels: the sender stripped them, or the archive holds the headers only.",
            sop_instance_uids=[instance.ref.sop_instance_uid for instance in without],
        )


def _demand_plausible(instances: Sequence[Instance]) -> None:
    """First of all, since the advice is another than for an honest file: size against header, before pixels are touched."""
    failures: list[tuple[Instance, CorruptPixels]] = []
    for instance in instances:
        try:
            demand_plausible(instance)
        except CorruptPixels as error:
            failures.append((instance, error))
    if failures:
        raise Refused(
            RefusalCode.CORRUPT,
            f"{count(len(failures), 'image')} of {len(instances)} with impossible pixel data: {failures[0][1]}",
            SEND_AGAIN,
            sop_instance_uids=[instance.ref.sop_instance_uid for instance, _ in failures],
        )


def _demand_volume_or_radiograph(frames: Sequence[Frame]) -> None:
    captures = [frame for frame in frames if frame.ref.sop_class_uid == SECONDARY_CAPTURE]
    pretended = [frame for frame in captures if frame.instance.headers.modality in VOLUME_MODALITIES]
    if pretended:
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"secondary captures ({names(pretended)}) whose Modality says {pretended[0].instance.headers.modality}: "
            "they carry no position or orientation and are no volume",
            "Send the original images; for a radiograph, correct Modality to CR or DX at the system that exports it.",
            pretended,
        )
    other = [frame for frame in captures if frame.instance.headers.modality not in RADIOGRAPH_MODALITIES]
    if other:
        raise Refused(
            RefusalCode.UNSUPPORTED_CLASS,
            f"secondary captures ({names(other)}) of Modality {other[0].instance.headers.modality or '(none)'}",
            "Nothing needs to be done; screen captures are not analysed.",
            other,
        )
    undecodable = [
        frame
        for frame in frames
        if not frame.layout.frame_format.photometric_interpretation.startswith("MONOCHROME")
        or frame.layout.frame_format.samples != 1
        or not is_decodable(frame.layout)
    ]
    if undecodable:
        layout = undecodable[0].layout
        raise Refused(
            RefusalCode.UNSUPPORTED_CLASS,
            f"{names(undecodable)}: pixels that are not read here ({layout.frame_format.photometric_interpretation}, "
            f"{layout.frame_format.bits_allocated} bits, transfer syntax {layout.transfer_syntax_uid})",
            "Send greyscale images, and let the archive send them in Explicit VR Little Endian or JPEG-LS.",
            undecodable,
        )
    kinds = {frame.ref.sop_class_uid in VOLUME_CLASSES for frame in frames}
    if len(kinds) > 1:
        radiographs = [frame for frame in frames if frame.ref.sop_class_uid not in VOLUME_CLASSES]
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"radiographs ({names(radiographs)}) among the slices of a volume",
            "Send slices and radiographs in series of their own.",
            radiographs,
        )


def _load_volume(series: SeriesRef, frames: Sequence[Frame], allow_many: bool, workers: int, ahead: Ahead) -> Volume:
    def same_pixels(one: Frame, other: Frame) -> bool:
        ahead.give_up()  # there is one decoding process
        return np.array_equal(decode_one(one), decode_one(other))

    stack = make_stack(frames, same_pixels, allow_many_frames_of_reference=allow_many)
    unit, doubts = unit_of(stack.frames[0])
    if len({unit_of(frame)[0] for frame in stack.frames}) > 1:
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            "the images of the series are measured in different units",
            "Split the series by Rescale Type or Units and send the one to be read.",
            stack.frames,
        )
    pixels = decode_slices(stack.frames, threads=workers, ahead=ahead.volume(stack.frames))
    return Volume(
        pixels=read_only(pixels),
        unit=unit,
        affine=read_only(stack.affine),
        frame_of_reference_uid=stack.frame_of_reference_uid,
        frames=tuple(frame.ref for frame in stack.frames),
        headers=stack.frames[0].instance.headers,
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        warnings=(*stack.warnings, *doubts),
    )


def _load_image(series: SeriesRef, frames: Sequence[Frame]) -> Image2D:
    chosen = frames[0]
    repeats = [frame for frame in frames[1:] if frame.ref == chosen.ref]
    if len(repeats) < len(frames) - 1:
        raise Refused(
            RefusalCode.TOO_MANY,
            f"{count(len(frames), 'radiograph')} in one series ({names(frames)}): which one to read is not said",
            "Send each radiograph as a series of its own.",
            frames,
        )
    pixels = radiograph_values(decode_one(chosen), chosen)
    if any(not np.array_equal(radiograph_values(decode_one(frame), frame), pixels) for frame in repeats):
        raise Refused(
            RefusalCode.DUPLICATE_POSITION,
            f"two different objects carry the same SOP Instance UID ({names(repeats)})",
            "Find out in the archive which of the two is right, delete the other and send the series again.",
            repeats,
        )
    spacing, origin = _projected_spacing(chosen.instance)
    return Image2D(
        pixels=read_only(pixels),
        pixel_spacing_mm=spacing,
        spacing_origin=origin,
        frame=chosen.ref,
        headers=headers_of_bright_high(chosen),
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
    )


def _projected_spacing(instance: Instance) -> tuple[tuple[float, float] | None, SpacingOrigin]:
    """Pixel Spacing that equals Imager Pixel Spacing is the detector's, not the patient's (PS3.3 10.7.1.3)."""
    calibrated, detector = instance.pixel_spacing, instance.imager_pixel_spacing
    if calibrated is not None and calibrated != detector:
        return calibrated, SpacingOrigin.CALIBRATED
    if detector is not None:
        return detector, SpacingOrigin.DETECTOR
    return None, SpacingOrigin.NONE
