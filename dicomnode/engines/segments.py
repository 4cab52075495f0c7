"""Any segmentation bundle: the most probable channel of each voxel becomes a segment, nothing more is said."""

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.findings import HeatMap, LabelMap, Segment
from dicomnode.domain.imaging import Refusal, read_only
from dicomnode.engines.instances import with_instances
from dicomnode.engines.rules import HeatMapRules
from dicomnode.engines.sidecar import SegmentRule
from dicomnode.engines.values import Case, Conclusion, NetworkInput, Prediction
from dicomnode.imaging.resampling import Grid, in_slabs, labels_on, slices_on


class SegmentsReading:
    """`postprocess = "segments"`: one label map "segments" on the source grid."""

    def __init__(self, case: Case) -> None:
        self._volume = case.volume
        self._sidecar = case.sidecar
        self._identity = (case.volume.series_instance_uid, case.digest)
        self._grid = Grid(case.volume.shape, case.volume.affine)

    def prepare(self) -> NetworkInput | Refusal:
        """The volume as it is."""
        return NetworkInput(self._volume.pixels, self._grid)

    def conclude(self, prediction: Prediction) -> Conclusion | Refusal:
        """The label map and, where asked for, a heat map."""
        channels = labels_on(prediction.probabilities, prediction.grid, self._grid)
        labels = np.zeros(channels.shape, dtype=np.uint8)
        for number, rule in enumerate(self._sidecar.segments, start=1):
            labels[channels == rule.channel] = number
        segments = segments_of(labels, self._sidecar.segments, self._grid)
        whole = (LabelMap("segments", read_only(labels), segments),) if segments else ()
        maps, notes = with_instances(whole, self._sidecar.segments, self._grid.voxel_ml, self._identity)
        return Conclusion(
            label_maps=maps,
            warnings=notes,
            heatmaps=heatmaps(prediction, self._grid, self._sidecar.heatmap),
        )


def segments_of(labels: NDArray[np.uint8], rules: tuple[SegmentRule, ...], grid: Grid) -> tuple[Segment, ...]:
    """Segments with voxels in `labels`; rule n (from 1) is voxel value n."""
    counts = [0, *(_voxels(labels, number) for number in range(1, len(rules) + 1))]
    return tuple(
        Segment(
            number=number,
            label=rule.label,
            category=rule.category,
            type=rule.type,
            anatomy=rule.anatomy,
            color_rgb=rule.color,
            volume_ml=counts[number] * grid.voxel_ml,
            voxels=counts[number],
        )
        for number, rule in enumerate(rules, start=1)
        if counts[number]
    )


def _voxels(labels: NDArray[np.uint8], number: int) -> int:
    counts: list[int] = []

    def count(part: slice) -> None:
        counts.extend(int(np.count_nonzero(plane == number)) for plane in labels[part])

    in_slabs(count, len(labels))
    return sum(counts)


def heatmaps(prediction: Prediction, grid: Grid, rules: HeatMapRules | None) -> tuple[HeatMap, ...]:
    """The probability of one channel on the source grid in 255 steps, or nothing where none is asked for."""
    if rules is None:
        return ()
    values = np.empty(grid.shape, dtype=np.uint8)
    for index, planes in enumerate(slices_on(prediction.probabilities[rules.channel][None], prediction.grid, grid)):
        values[index] = np.rint(np.clip(planes[0], 0, 1) * 255)
    return (HeatMap(rules.name, read_only(values), minimum=0.0, scale=1 / 255),)
