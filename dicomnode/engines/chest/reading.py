"""`postprocess = "chest"`: a CT of the chest to lungs, lesions and one statement on nodules."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.domain.findings import LabelMap
from dicomnode.domain.imaging import Refusal, Volume, read_only
from dicomnode.engines.chest.body import body_mask, working_steps
from dicomnode.engines.chest.findings import classification, lesion_map, lesion_of
from dicomnode.engines.chest.lesions import Candidate, NetworkView, calibrated, find_candidates
from dicomnode.engines.chest.region import aerated_mask, refuse_after, refuse_before
from dicomnode.engines.chest.sides import LEFT, RIGHT, Frame, split_lungs
from dicomnode.engines.intensities import refuse_intensities
from dicomnode.engines.segments import heatmaps, segments_of
from dicomnode.engines.sidecar import Sidecar
from dicomnode.engines.values import Box, Conclusion, NetworkInput, Prediction
from dicomnode.imaging.resampling import Grid, canonical, labels_on, nearest_on


class ChestReading:
    """Holds what one run learns of one volume: body, middle, aerated tissue."""

    def __init__(self, volume: Volume, sidecar: Sidecar, digest: str) -> None:
        self._volume = volume
        self._sidecar = sidecar
        self._tables = sidecar.chest_tables()
        self._digest = digest
        self._source = Grid(volume.shape, volume.affine)
        self._pixels, self._grid = canonical(volume.pixels, self._source)
        self._body: NDArray[np.bool_] = np.zeros((0, 0, 0), dtype=bool)

    def prepare(self) -> NetworkInput | Refusal:
        """The volume on canonical axes with everything but the body set to air."""
        rules = self._sidecar
        if rules.intensities is not None and (refusal := refuse_intensities(self._pixels, rules.intensities)):
            return refusal
        self._body = body_mask(self._pixels, self._grid.spacing_mm, self._tables.body.threshold)
        aerated = aerated_mask(self._pixels, self._body, self._grid.spacing_mm)
        if refusal := refuse_before(aerated, self._grid.spacing_mm, self._tables.region):
            return refusal
        outside = np.asarray(self._tables.body.outside, dtype=self._pixels.dtype)
        masked = np.where(self._body, self._pixels, outside)
        return NetworkInput(masked, self._grid, self._box_of(aerated))

    def conclude(self, prediction: Prediction) -> Conclusion | Refusal:
        """Lungs by side, lesions, classification and heat map on the source grid; or that this is no chest."""
        view = self._view(prediction)
        if refusal := self._refuse_lungs(view):
            return refusal
        rules = self._tables.lesions
        candidates = find_candidates(view, self._volume.pixels, self._source, rules)
        probable = [candidate for candidate in candidates if candidate.probability >= rules.min_probability]
        reported = probable[: rules.max_count]
        warnings = (
            (f"{len(probable)} lesions were found, the {rules.max_count} most probable are reported",)
            if len(probable) > len(reported)
            else ()
        )
        identity = (self._volume.series_instance_uid, self._digest)
        lesions = tuple(lesion_of(n, c, rules, self._sidecar.name, identity) for n, c in enumerate(reported, start=1))
        return Conclusion(
            label_maps=(self._lung_map(prediction, view, reported), *lesion_map(reported, lesions, rules, self._source.shape)),
            lesions=lesions,
            classifications=classification(candidates, self._best_voxel(view), self._sidecar.classification),
            heatmaps=heatmaps(prediction, self._source, self._sidecar.heatmap),
            warnings=warnings,
        )

    def _best_voxel(self, view: NetworkView) -> float:
        rules = self._tables.lesions
        below = view.lesion[(view.sides > 0) & (view.lesion < rules.threshold)]
        return calibrated(float(below.max(initial=0.0)), rules.calibration)

    def _box_of(self, aerated: NDArray[np.bool_]) -> Box:
        """The box of the full grid around the aerated tissue, which is given on the working grid."""
        steps = working_steps(self._grid.spacing_mm)
        z, y, x = (
            slice(int(found[0]) * step, min(size, (int(found[-1]) + 1) * step))
            for axis, (step, size) in enumerate(zip(steps, self._grid.shape, strict=True))
            for found in [np.flatnonzero(aerated.any(axis=tuple(other for other in range(3) if other != axis)))]
        )
        return z, y, x

    def _view(self, prediction: Prediction) -> NetworkView:
        """The network's word on canonical axes, its lungs parted into sides."""
        lesion_channel, lung_channel = self._tables.lesions.channel, self._tables.lung_channel
        planes = [canonical(plane, prediction.grid) for plane in prediction.probabilities]
        grid = planes[0][1]
        lung, lesion = planes[lung_channel][0], planes[lesion_channel][0]
        rest = np.maximum.reduce(
            [plane for channel, (plane, _) in enumerate(planes) if channel not in (lung_channel, lesion_channel)]
        )
        aerated = (lung > rest) & (lung >= lesion)
        either = aerated | ((lesion > rest) & ndimage.binary_dilation(aerated, iterations=2))
        return NetworkView(np.ascontiguousarray(lesion), aerated, split_lungs(either, self._frame(grid)), grid)

    def _frame(self, grid: Grid) -> Frame:
        """Columns of `grid` in mm from the middle of the body, positive to the patient's left."""
        steps = working_steps(self._grid.spacing_mm)
        small = self._body[:: steps[0], :: steps[1], :: steps[2]]
        middle = np.array(ndimage.center_of_mass(small)) * steps
        middle_mm = float(self._grid.points_mm(middle)[0])
        centre = (np.array(grid.shape) - 1) / 2
        columns = np.column_stack(
            [np.full(grid.shape[2], centre[0]), np.full(grid.shape[2], centre[1]), np.arange(grid.shape[2])]
        )
        return Frame(grid.spacing_mm, grid.points_mm(columns)[:, 0] - middle_mm)

    def _refuse_lungs(self, view: NetworkView) -> Refusal | None:
        steps = working_steps(self._grid.spacing_mm)
        every = tuple(slice(None, None, step) for step in steps)
        pixels = self._pixels[every]
        affine = self._grid.affine.copy()
        affine[:3, :3] *= steps
        z, y, x = pixels.shape
        small = Grid((z, y, x), affine)
        lungs = _inside(view.grid, small, nearest_on(view.sides > 0, view.grid, small))
        return refuse_after(lungs, pixels, self._body[every], small.spacing_mm, self._tables.region)

    def _lung_map(self, prediction: Prediction, view: NetworkView, reported: list[Candidate]) -> LabelMap:
        """Both lungs on the source grid, reported lesions included."""
        labels = np.zeros(self._source.shape, dtype=np.uint8)
        number_of = {LEFT if rule.side == "left" else RIGHT: n for n, rule in enumerate(self._sidecar.segments, start=1)}
        as_number = np.zeros(3, dtype=np.uint8)
        for side, number in number_of.items():
            as_number[side] = number
        box, part = self._box_covering(prediction.grid)
        grown = np.where(view.sides > 0, view.sides, ndimage.maximum_filter(view.sides, 3))
        channels = labels_on(prediction.probabilities, prediction.grid, part)
        lung = (channels == self._tables.lung_channel) | (channels == self._tables.lesions.channel)
        labels[box] = as_number[nearest_on(grown, view.grid, part)] * lung
        for candidate in reported:
            labels[candidate.box][candidate.mask & (labels[candidate.box] == 0)] = as_number[candidate.side]
        return LabelMap("lungs", read_only(labels), segments_of(labels, self._sidecar.segments, self._source))

    def _box_covering(self, grid: Grid) -> tuple[Box, Grid]:
        """The box of the source that lies on the network's grid, which may have been cropped."""
        corners = np.array(
            [[z, y, x] for z in (0, grid.shape[0] - 1) for y in (0, grid.shape[1] - 1) for x in (0, grid.shape[2] - 1)]
        )
        indices = self._source.indices(grid.points_mm(corners))
        starts = np.clip(np.rint(indices.min(axis=0) - 0.5), 0, np.array(self._source.shape) - 1).astype(int)
        stops = np.clip(np.rint(indices.max(axis=0) + 0.5) + 1, starts + 1, self._source.shape).astype(int)
        z, y, x = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
        return (z, y, x), self._source.part((z, y, x))


def _inside(source: Grid, target: Grid, labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """`labels` on `target` as bool, False where `target` leaves `source`: nearest_on would smear its border there."""
    result = np.asarray(labels, dtype=bool).copy()
    for axis in range(3):
        indices = np.zeros((target.shape[axis], 3))
        indices[:, axis] = np.arange(target.shape[axis])
        position = source.indices(target.points_mm(indices))[:, axis]
        outside = (position < -0.5) | (position > source.shape[axis] - 0.5)
        result[tuple(outside if other == axis else slice(None) for other in range(3))] = False
    return result
