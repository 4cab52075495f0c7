"""The decision table: frames of one series in any order → one regular stack, or a refusal.

Split off are only localizers and frames of another size, pixel spacing or orientation, and a warning says so. Whatever else is
not one regular stack is refused: nothing is interpolated, straightened or guessed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import RefusalCode
from dicomnode.imaging import geometry
from dicomnode.imaging.coincidence import resolve_coincidence
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.refusing import Refused, count, names
from dicomnode.imaging.seams import describe_ranges, joined_ranges, scan_ranges

MINIMUM_SLICES = 3  # of single-frame images: of two, nothing shows whether a third between them was lost
MAXIMUM_SLICES = 4096
MAXIMUM_VOXELS = 1 << 30

type_same_pixels = Callable[[Frame, Frame], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames in ascending order along the slice normal, and their common grid."""

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]
    frame_of_reference_uid: str
    warnings: tuple[str, ...]


def make_stack(frames: Sequence[Frame], same_pixels: type_same_pixels, *, allow_many_frames_of_reference: bool) -> Stack:
    """The stack that `frames` make. Raises Refused, with the reason.

    `same_pixels` is asked only of frames that lie at one place: it decodes them.
    """
    warnings: list[str] = []
    chosen = _without_repeats(frames, same_pixels, warnings)
    chosen = _without_localizers(chosen, warnings)
    _demand_geometry(chosen)
    chosen = _largest_group(chosen, warnings)
    _demand_bounds(chosen)
    frame_of_reference_uid = _frame_of_reference(chosen, allow_many_frames_of_reference, warnings)
    normal = geometry.normal_of(_orientation(chosen))
    chosen = sorted(chosen, key=lambda frame: float(_position(frame) @ normal))
    chosen = resolve_coincidence(chosen, normal, same_pixels, warnings)
    _demand_enough(chosen)
    _demand_no_drift(chosen, normal)
    _demand_even_steps(chosen, normal)
    _warn_of_doubts(chosen, normal, warnings)
    offsets = np.array([_position(frame) @ normal for frame in chosen])
    affine = geometry.affine_of(_orientation(chosen), _spacing(chosen[0]), _position(chosen[0]), offsets)
    return Stack(tuple(chosen), affine, frame_of_reference_uid, tuple(warnings))


def _position(frame: Frame) -> geometry.type_vector:
    assert frame.position is not None  # noqa: S101  held by _demand_geometry
    return frame.position


def _spacing(frame: Frame) -> tuple[float, float]:
    assert frame.pixel_spacing is not None  # noqa: S101  held by _demand_geometry
    return frame.pixel_spacing


def _orientation(frames: Sequence[Frame]) -> geometry.type_vector:
    """The common orientation: the median, since real series differ in the eighth digit."""
    return np.median([frame.orientation for frame in frames], axis=0)


def _without_repeats(frames: Sequence[Frame], same_pixels: type_same_pixels, warnings: list[str]) -> list[Frame]:
    """The same SOP instance twice: once is enough if both say the same, else nobody knows which is right."""
    first: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        known = first.setdefault((frame.ref.sop_instance_uid, frame.frame_index), frame)
        if known is frame:
            continue
        if not (_same_header(known, frame) and same_pixels(known, frame)):
            raise Refused(
                RefusalCode.DUPLICATE_POSITION,
                f"two different objects carry the same SOP Instance UID ({names([frame])})",
                "Find out in the archive which of the two is right, delete the other and send the series again.",
                [frame],
            )
    if len(first) < len(frames):
        warnings.append(f"{count(len(frames) - len(first), 'image')} came twice with equal content; the copies were left out")
    return list(first.values())


def _same_header(one: Frame, other: Frame) -> bool:
    def key(frame: Frame) -> tuple[object, ...]:
        arrays = (None if array is None else tuple(array) for array in (frame.position, frame.orientation))
        return (
            *arrays,
            frame.pixel_spacing,
            frame.slope,
            frame.intercept,
            frame.layout.frame_format.photometric_interpretation,
        )

    return key(one) == key(other)


def _without_localizers(frames: Sequence[Frame], warnings: list[str]) -> list[Frame]:
    localizers = [frame for frame in frames if frame.is_localizer]
    if not localizers:
        return list(frames)
    if len(localizers) == len(frames):
        raise Refused(
            RefusalCode.LOCALIZER,
            f"the series holds nothing but localizers ({names(localizers)})",
            "Nothing needs to be done; the slices are in another series of the study, which must be sent.",
            localizers,
        )
    warnings.append(f"{count(len(localizers), 'localizer')} left out ({names(localizers)})")
    return [frame for frame in frames if not frame.is_localizer]


def _demand_geometry(frames: Sequence[Frame]) -> None:
    without = [frame for frame in frames if frame.position is None or frame.orientation is None or frame.pixel_spacing is None]
    if without:
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"{names(without)}: without Image Position, Image Orientation or Pixel Spacing nobody knows where they lie",
            "Send the original images from the scanner or the archive; screen captures and exports have lost their geometry.",
            without,
        )
    crooked = [frame for frame in frames if frame.orientation is not None and not geometry.is_orthonormal(frame.orientation)]
    if crooked:
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"{names(crooked)}: row and column directions are not unit vectors at a right angle",
            "Image Orientation (Patient) is wrong in these files; ask the vendor of the system that wrote them.",
            crooked,
        )


def _largest_group(frames: Sequence[Frame], warnings: list[str]) -> list[Frame]:
    """Frames of one size, pixel spacing and orientation; the others are left out if they are fewer."""
    groups: list[list[Frame]] = []
    for frame in frames:
        home = next((group for group in groups if _alike(group[0], frame)), None)
        if home is None:
            groups.append([frame])
        else:
            home.append(frame)
    groups.sort(key=len, reverse=True)
    if len(groups) > 1 and len(groups[0]) == len(groups[1]):
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"the series mixes {len(groups)} sizes, pixel spacings or orientations, of which none has the most images: "
            + "; ".join(_describe(group) for group in groups[:4]),
            "Split the series at the scanner or in the archive, one orientation and size in each, and send the one to be read.",
            frames,
        )
    warnings.extend(f"left out: {_describe(group)}, {names(group)}" for group in groups[1:])
    return groups[0]


def _alike(one: Frame, other: Frame) -> bool:
    formats = one.layout.frame_format, other.layout.frame_format
    if (formats[0].rows, formats[0].columns) != (formats[1].rows, formats[1].columns):
        return False
    spacings = np.abs(np.subtract(_spacing(one), _spacing(other))) / _spacing(one)
    turned = np.abs(np.subtract(one.orientation, other.orientation))  # type: ignore[arg-type]  # held by _demand_geometry
    return bool(spacings.max() <= geometry.SPACING_TOLERANCE and turned.max() <= geometry.ORIENTATION_TOLERANCE)


def _describe(frames: Sequence[Frame]) -> str:
    frame = frames[0]
    assert frame.orientation is not None  # noqa: S101  held by _demand_geometry
    plane = ("sagittal", "coronal", "axial")[int(np.abs(geometry.normal_of(frame.orientation)).argmax())]
    spacing = " x ".join(f"{value:g}" for value in _spacing(frame))
    size = frame.layout.frame_format
    return f"{count(len(frames), 'image')} ({plane}, {size.rows} x {size.columns} pixels of {spacing} mm)"


def _demand_bounds(frames: Sequence[Frame]) -> None:
    size = frames[0].layout.frame_format
    if len(frames) > MAXIMUM_SLICES or len(frames) * size.rows * size.columns > MAXIMUM_VOXELS:
        raise Refused(
            RefusalCode.TOO_MANY,
            f"{len(frames)} images of {size.rows} x {size.columns} are more than one volume may hold "
            f"({MAXIMUM_SLICES} slices, {MAXIMUM_VOXELS} voxels)",
            "Send one reconstruction or time point in each series, or one with fewer pixels.",
            frames,
        )


def _frame_of_reference(frames: Sequence[Frame], allow_many: bool, warnings: list[str]) -> str:
    """The first slice's; several are known from anonymisers that drew a new one for each image."""
    uids = Counter(frame.instance.frame_of_reference_uid for frame in frames)
    if len(uids) > 1:
        if not allow_many and not all(frame.instance.patient_identity_removed for frame in frames):
            raise Refused(
                RefusalCode.MIXED_GEOMETRY,
                f"the {len(frames)} images name {len(uids)} different Frames of Reference: they need not lie where they say",
                "Send the series as the scanner wrote it. If an anonymiser replaced the UIDs, it should set Patient Identity "
                "Removed to YES, or the route must allow several Frames of Reference.",
                frames,
            )
        warnings.append(f"{len(uids)} Frame of Reference UIDs in one de-identified series; positions were taken as one system")
    if "" in uids:
        warnings.append("images without a Frame of Reference UID")
    return frames[0].instance.frame_of_reference_uid


def _demand_enough(frames: Sequence[Frame]) -> None:
    single = all(frame.layout.number_of_frames == 1 for frame in frames)
    needed = MINIMUM_SLICES if single else 2  # frames of one object cannot get lost one by one
    if len(frames) < needed:
        raise Refused(
            RefusalCode.TOO_FEW,
            f"{count(len(frames), 'image')} in the stack ({names(frames)}): too few for a volume, which needs {needed}",
            "Check in the archive whether the series is complete; a single reformatted image cannot be analysed as a volume.",
            frames,
        )


def _demand_no_drift(frames: Sequence[Frame], normal: geometry.type_vector) -> None:
    drift = geometry.sideways_drift(np.array([_position(frame) for frame in frames]), normal)
    limit = geometry.DRIFT_TOLERANCE_PIXELS * min(_spacing(frames[0]))
    if drift.sideways_mm <= limit:
        return
    if drift.irregular_mm <= limit:
        raise Refused(
            RefusalCode.TILT,
            f"slices are tilted by {drift.angle_degrees:.1f} degrees against their stacking direction "
            f"(gantry tilt: {drift.sideways_mm:.1f} mm sideways over the stack)",
            "Send a reconstruction without gantry tilt, for example an axial reformat from the scanner's console.",
            frames,
        )
    raise Refused(
        RefusalCode.MIXED_GEOMETRY,
        f"slices do not lie above each other: up to {drift.sideways_mm:.1f} mm sideways",
        "The series joins reconstructions with different centres; send one reconstruction in each series.",
        frames,
    )


def _demand_even_steps(frames: Sequence[Frame], normal: geometry.type_vector) -> None:
    offsets = np.array([_position(frame) @ normal for frame in frames])
    report = geometry.judge_steps(offsets)
    seams = [index for index, lost in report.missing if lost > 2] + list(report.uneven)
    ranges = scan_ranges(frames)
    if seams and ranges is not None and all(ranges.changes_between(frames[index], frames[index + 1]) for index in seams):
        beside = [frames[index + offset] for index in sorted(seams) for offset in (0, 1)]
        raise Refused(RefusalCode.MIXED_GEOMETRY, *describe_ranges(ranges, normal, beside), beside)
    if report.uneven or (geometry.strays_from_grid(offsets) and not report.missing):
        beside = [frames[index + offset] for index in report.uneven for offset in (0, 1)] or list(frames)
        steps = ", ".join(f"{value:g}" for value in sorted({round(float(step), 3) for step in np.diff(offsets)})[:6])
        raise Refused(
            RefusalCode.MIXED_GEOMETRY,
            f"uneven distances between slices ({steps} mm; the usual one is {report.step:g} mm) at {names(beside)}",
            "Send a reconstruction with one slice distance throughout; if parts are missing, send the series again.",
            beside,
        )
    if report.missing:
        _refuse_gap(frames, offsets, report)


def _refuse_gap(frames: Sequence[Frame], offsets: geometry.type_vector, report: geometry.StepReport) -> None:
    absent = [
        offsets[index] + (offsets[index + 1] - offsets[index]) * part / (lost + 1)
        for index, lost in report.missing
        for part in range(1, lost + 1)
    ]
    beside = [frames[index + offset] for index, _ in report.missing for offset in (0, 1)]
    places = ", ".join(f"{value:.2f}" for value in absent[:10]) + (" …" if len(absent) > 10 else "")
    raise Refused(
        RefusalCode.GAP,
        f"{count(len(absent), 'slice')} missing at {places} mm along the slice normal, between {names(beside)} "
        f"(slices lie {report.step:g} mm apart)",
        "Send the whole series again from the scanner or the archive, and compare its number of images there with "
        f"{len(frames)} here.",
        beside,
    )


def _warn_of_doubts(frames: Sequence[Frame], normal: geometry.type_vector, warnings: list[str]) -> None:
    """What is geometrically right, and yet the reader of a result should know."""
    step = float((_position(frames[-1]) - _position(frames[0])) @ normal) / (len(frames) - 1)
    thickness = frames[0].instance.headers.slice_thickness_mm
    if thickness and step > 1.5 * thickness:
        warnings.append(f"slices of {thickness:g} mm lie {step:g} mm apart: what is between them was not imaged, or not sent")
    if (acquisitions := joined_ranges(frames)) > 1:
        warnings.append(f"the stack joins {acquisitions} acquisitions without a seam in its geometry")
    kernels = {frame.distinctions["ConvolutionKernel"] for frame in frames}
    if len(kernels) > 1:
        warnings.append(f"the stack mixes {len(kernels)} convolution kernels")
