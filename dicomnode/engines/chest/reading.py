"""`postprocess = "chest"`: a CT of the chest to lungs, lesions and one statement on nodules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import LabelMap
from dicomnode.domain.imaging import Refusal, read_only
from dicomnode.engines.chest.body import body_of, upsampled, working, working_steps
from dicomnode.engines.chest.findings import classification, lesion_map, lesion_of
from dicomnode.engines.chest.lesions import Candidate, calibrated, each_its_own, find_candidates, without_diffuse
from dicomnode.engines.chest.lungs import LungView, best_below, lung_labels, lung_view, lungs_on
from dicomnode.engines.chest.region import aerated_of, no_lung, refuse_after, refuse_before
from dicomnode.engines.chest.sides import LEFT, RIGHT
from dicomnode.engines.intensities import refuse_intensities
from dicomnode.engines.segments import heatmaps, segments_of
from dicomnode.engines.values import Case, Conclusion, NetworkInput, Prediction
from dicomnode.imaging.resampling import Box, Grid, box_of, canonical


class ChestReading:
    """Holds what one run learns of one volume: its body and where the middle of it is."""

    def __init__(self, case: Case) -> None:
        self._volume = case.volume
        self._sidecar = case.sidecar
        self._tables = case.sidecar.chest_tables()
        self._identity = (case.volume.series_instance_uid, case.digest)
        self._source = Grid(case.volume.shape, case.volume.affine)
        pixels = case.volume.pixels
        if pixels.dtype.kind == "u":  # HU has negative values, and so has what is put outside the body
            pixels = pixels.astype(np.float32)
        self._pixels, self._grid = canonical(pixels, self._source)
        self._steps = working_steps(self._grid.spacing_mm)
        self._small = working(self._pixels, self._grid.spacing_mm)
        self._body: NDArray[np.bool_] = np.zeros((0, 0, 0), dtype=bool)  # on the working grid

    def prepare(self) -> NetworkInput | Refusal:
        """The volume on canonical axes; of the part that it sees, everything but the body is air."""
        rules = self._sidecar
        if rules.intensities is not None and (refusal := refuse_intensities(self._pixels, rules.intensities)):
            return refusal
        self._body = body_of(self._small, self._grid.spacing_mm, self._tables.body.threshold)
        aerated = aerated_of(self._small, self._body)
        if refusal := refuse_before(aerated, self._grid.spacing_mm, self._tables.region):
            return refusal
        return NetworkInput(self._pixels, self._grid, self._box_of(aerated), self._without_surroundings)

    def conclude(self, prediction: Prediction) -> Conclusion | Refusal:
        """Lungs by side, lesions, classification and heat map on the source grid; or that this is no chest."""
        lesion_rules = self._tables.lesions
        view = lung_view(prediction, self._tables.lung_channel, lesion_rules.channel, self._middle_mm())
        if view is None:
            return no_lung()
        if refusal := self._refuse_lungs(view):
            return refusal
        found = find_candidates(view, self._volume.pixels, self._source, lesion_rules)
        candidates, diffuse = without_diffuse(found, lesion_rules)
        probable = [candidate for candidate in candidates if candidate.probability >= lesion_rules.min_probability]
        reported = each_its_own(probable[: lesion_rules.max_count], self._volume.pixels, self._source)
        lesions = tuple(
            lesion_of(n, c, lesion_rules, self._sidecar.name, self._identity) for n, c in enumerate(reported, start=1)
        )
        return Conclusion(
            label_maps=(self._lung_map(view, reported), *lesion_map(reported, lesions, lesion_rules, self._source.shape)),
            lesions=lesions,
            lesions_sought=True,
            classifications=classification(candidates, self._best_voxel(view), self._sidecar.classification),
            heatmaps=heatmaps(prediction, self._source, self._sidecar.heatmap),
            warnings=(*_diffuse(diffuse), *_too_many(len(probable), len(reported))),
        )

    def _without_surroundings(self, pixels: NDArray[Any], box: Box) -> NDArray[Any]:
        """`pixels` of `box` with everything but the body set to air."""
        outside = np.asarray(self._tables.body.outside, dtype=pixels.dtype)
        return np.where(upsampled(self._body, self._steps, box), pixels, outside)

    def _box_of(self, aerated: NDArray[np.bool_]) -> Box:
        """The box of the full grid around the aerated tissue, which is given on the working grid."""
        found = box_of(aerated) or tuple(slice(0, size) for size in aerated.shape)
        z, y, x = (
            slice(s.start * step, min(size, s.stop * step))
            for s, step, size in zip(found, self._steps, self._grid.shape, strict=True)
        )
        return z, y, x

    def _middle_mm(self) -> float:
        """LPS x of the middle of the body."""
        counts = (self._body.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
        middle = np.array([np.average(np.arange(len(one)), weights=one) for one in counts]) * self._steps
        return float(self._grid.points_mm(middle)[0])

    def _refuse_lungs(self, view: LungView) -> Refusal | None:
        lungs = lungs_on(view, self._grid.every(self._steps))
        spacing_mm = self._grid.every(self._steps).spacing_mm
        return refuse_after(lungs, self._small, self._body, spacing_mm, self._tables.region)

    def _best_voxel(self, view: LungView) -> float:
        """Calibrated probability of the lung voxel that comes nearest to being a lesion."""
        rules = self._tables.lesions
        return calibrated(best_below(view, rules.threshold), rules.calibration)

    def _lung_map(self, view: LungView, reported: list[Candidate]) -> LabelMap:
        """Both lungs on the source grid, reported lesions included."""
        number_of = {LEFT if rule.side == "left" else RIGHT: n for n, rule in enumerate(self._sidecar.segments, start=1)}
        channels = (self._tables.lung_channel, self._tables.lesions.channel)
        labels = lung_labels(view, self._source, channels, number_of)
        for candidate in reported:
            inside = labels[candidate.box]
            inside[candidate.mask & (inside == 0)] = number_of.get(candidate.side, 0)
        return LabelMap("lungs", read_only(labels), segments_of(labels, self._sidecar.segments, self._source))


def _diffuse(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} pale areas in the lungs look like diffuse disease: none of them is reported as a nodule",)


def _too_many(probable: int, reported: int) -> tuple[str, ...]:
    if probable == reported:
        return ()
    return (f"{probable} lesions were found, the {reported} most probable are reported",)
