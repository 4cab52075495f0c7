"""The case of `bench results`: a synthetic chest CT with two lungs and a nodule as findings, and what is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import Classification, Code, Findings, HeatMap, LabelMap, Lesion, ModelIdentity, Segment
from dicomnode.domain.imaging import Volume, read_only
from dicomnode.domain.profiles import Profile, ResultKind, ScForm, SegForm, SrForm
from dicomnode.domain.results import ResultRequest
from dicomnode.domain.uids import derived_uid
from dicomnode.phantom import NoduleSpec, ThoraxSpec, thorax, write_study

SEED = 11
DRAWN_SLICES = 60  # a phantom of so many slices is repeated: drawing 300 takes longer than measuring
LUNG = Code("39607008", "SCT", "Lung")
ORGAN = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")
PRESENT = Code("52101004", "SCT", "Present")
LABELS = "labels.npy"


@dataclass(frozen=True, slots=True)
class Case:
    """Which kinds in which form; `heat`: the findings hold a heat map of the whole volume too."""

    name: str
    profile: Profile
    heat: bool = False


def _profile(*kinds: ResultKind, **form: object) -> Profile:
    return replace(Profile("bench", kinds=kinds, fallbacks=(), sr_form=SrForm.OHIF), **form)  # type: ignore[arg-type]


DEFAULT = "SEG + SR + SC"
CASES = (
    Case(DEFAULT, _profile(ResultKind.SEG, ResultKind.SR, ResultKind.SC)),
    Case("SEG binary", _profile(ResultKind.SEG)),
    Case("SEG binary + SR", _profile(ResultKind.SEG, ResultKind.SR)),
    Case("SC single frames", _profile(ResultKind.SC)),
    Case("SC multi-frame", _profile(ResultKind.SC, sc_form=ScForm.MULTI_FRAME)),
    Case("SEG fractional", _profile(ResultKind.SEG, seg_form=SegForm.FRACTIONAL)),
    Case("SEG labelmap", _profile(ResultKind.SEG, seg_form=SegForm.LABELMAP)),
    Case("GSPS", _profile(ResultKind.GSPS)),
    Case("KOS", _profile(ResultKind.KOS)),
    Case("PDF", _profile(ResultKind.PDF)),
    Case("FHIR", _profile(ResultKind.FHIR)),
    Case("parametric map", _profile(ResultKind.PARAMETRIC_MAP), heat=True),
)


def prepare(folder: Path, slices: int, size: int) -> None:
    """Writes the CT, a file a slice, and the labels beside it."""
    repeats = -(-slices // DRAWN_SLICES)
    spec = ThoraxSpec(
        seed=SEED,
        slices=-(-slices // repeats),
        size=size,
        slice_spacing_mm=240.0 / slices * repeats,
        pixel_spacing_mm=384.0 / size,
        nodules=(NoduleSpec((75.0, 20.0, 20.0), 24.0),),
    )
    drawn = thorax(spec)
    hu, labels = np.repeat(drawn.hu, repeats, axis=0)[:slices], np.repeat(drawn.labels, repeats, axis=0)[:slices]
    thin = replace(spec, slices=slices, slice_spacing_mm=spec.slice_spacing_mm / repeats)
    affine = drawn.affine.copy()
    affine[:3, 0] /= repeats
    write_study(replace(drawn, hu=hu, labels=labels, affine=affine, spec=thin), folder / "ct")
    np.save(folder / LABELS, labels)


def findings_of(volume: Volume, labels: NDArray[np.uint8], *, heat: bool) -> Findings:
    """Lungs and the nodule of the labels; `heat` adds a map that is warm everywhere."""
    lungs = np.where(labels <= 2, labels, 0).astype(np.uint8)
    nodule = (labels > 2).astype(np.uint8)
    lesion = _lesion(volume, nodule)
    organs = tuple(
        _segment(volume, lungs, number, f"{side} lung", color)
        for number, side, color in ((1, "Left", (102, 194, 255)), (2, "Right", (120, 230, 150)))
    )
    spot = replace(
        _segment(volume, nodule, 1, lesion.label, (255, 90, 90)),
        category=ABNORMAL,
        type=NODULE,
        tracking_id=lesion.tracking_id,
        tracking_uid=lesion.tracking_uid,
    )
    return Findings(
        model=ModelIdentity("bench", "1.0", "ab" * 32, "dicomnode project", "DEMONSTRATION - NOT FOR CLINICAL USE", True),
        label_maps=(LabelMap("lungs", read_only(lungs), organs), LabelMap("nodules", read_only(nodule), (spot,))),
        lesions=(lesion,),
        classifications=(Classification("Suspicious nodule", NODULE, "present", PRESENT, 0.93, 0.5),),
        heatmaps=(_heat(labels),) if heat else (),
    )


def _segment(volume: Volume, labels: NDArray[np.uint8], number: int, label: str, color: tuple[int, int, int]) -> Segment:
    voxels = int(np.count_nonzero(labels == number))
    return Segment(number, label, ORGAN, LUNG, color, voxels * volume.voxel_ml, voxels)


def _lesion(volume: Volume, mask: NDArray[np.uint8]) -> Lesion:
    indices = np.argwhere(mask)
    values = volume.pixels[mask.astype(bool)]
    z, y, x = indices.mean(axis=0)
    center = (volume.affine @ np.array([z, y, x, 1.0]))[:3]
    return Lesion(
        label="Nodule 1",
        tracking_id="bench nodule 1",
        tracking_uid=derived_uid(("bench nodule",)),
        center_mm=(float(center[0]), float(center[1]), float(center[2])),
        long_axis_mm=24.0,
        short_axis_mm=22.0,
        volume_ml=float(len(indices) * volume.voxel_ml),
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        probability=0.93,
        laterality="left" if center[0] > 0 else "right",
        segment=("nodules", 1),
        key_slice_index=int(np.count_nonzero(mask, axis=(1, 2)).argmax()),
    )


def _heat(labels: NDArray[np.uint8]) -> HeatMap:
    values = np.full(labels.shape, 20, np.uint8)
    values[labels > 0] = 90
    values[labels > 2] = 230
    return HeatMap("activation", read_only(values), 0.0, 1 / 255)


def request_for(case: Case, paths: list[Path]) -> ResultRequest:
    """As the worker makes it."""
    return ResultRequest(
        pipeline="bench",
        pipeline_version="1.0",
        version=1,
        content_time=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        node_timezone="Europe/Berlin",
        source_digests=digests(paths),
        kinds=case.profile.kinds,
        profiles=(case.profile,),
    )


def digests(paths: list[Path]) -> Mapping[str, str]:
    """As the registry has them: known before the job begins, so not measured."""
    return {path.name: sha256(path.name.encode()).hexdigest() for path in paths}
