"""The maps that a bundle's postprocessing ends with become label maps on the source grid."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import LabelMap
from dicomnode.domain.imaging import read_only
from dicomnode.engines.own_way import grid_of_map, map_array
from dicomnode.engines.segments import segments_of
from dicomnode.engines.sidecar import SegmentRule
from dicomnode.engines.spatial import same_grid
from dicomnode.imaging.resampling import Grid, nearest_on

_WHOLE = 1e-3  # how far from a whole number a label may be
_MOST_LABELS = 255  # of one label map, uint8


def label_maps(prediction: Any, rules: tuple[SegmentRule, ...], source: Grid, voxel_ml: float) -> tuple[LabelMap, ...]:
    """Segments of a map (channel, x, y[, z]): one channel of labels, a mask per channel, or probabilities per channel.

    Masks that overlap come into label maps of their own. voxel_ml: 0 for a projection, whose pixels have no volume.
    Raises PipelineError for what is no such map.
    """
    if not isinstance(prediction, torch.Tensor) or prediction.ndim not in (3, 4):
        shape = tuple(prediction.shape) if isinstance(prediction, torch.Tensor) else type(prediction).__name__
        raise PipelineError(
            f"postprocessing ends with {shape}, a map with channels expected", "correct the task in pipeline.toml"
        )
    grid, values = grid_of_map(prediction), map_array(prediction)
    if not np.isfinite(values).all():
        raise PipelineError("the network gives values that are no numbers", "check its weights, and the values of the input")
    layers = _layers(_masks(values, rules), grid, source)
    maps = []
    for number, labels in enumerate(layers, start=1):
        segments = tuple(replace(one, volume_ml=one.voxels * voxel_ml) for one in segments_of(labels, rules, source))
        if segments:
            maps.append(LabelMap("segments" if number == 1 else f"segments {number}", read_only(labels), segments))
    return tuple(maps)


def _masks(values: NDArray[Any], rules: tuple[SegmentRule, ...]) -> list[NDArray[np.bool_]]:
    """The voxels of each rule, (z, y, x), on the map's own grid."""
    channels = len(values)
    if channels == 1:
        return _masks_of_labels(values[0], rules)
    if missing := [rule.channel for rule in rules if rule.channel >= channels]:
        raise PipelineError(f"the output has {channels} channels, pipeline.toml wants {missing}", "correct the channel numbers")
    if np.isin(values, (0, 1)).all():
        return [values[rule.channel] > 0.5 for rule in rules]
    chosen = np.argmax(values, axis=0)
    return [chosen == rule.channel for rule in rules]


def _masks_of_labels(values: NDArray[Any], rules: tuple[SegmentRule, ...]) -> list[NDArray[np.bool_]]:
    if len(rules) == 1 and rules[0].channel <= 1 and values.min() >= 0 and values.max() <= 1:
        return [values > 0.5]  # one mask, or its probability
    labels = np.rint(values)
    if np.abs(values - labels).max() > _WHOLE:
        raise PipelineError(
            "postprocessing ends with one channel that holds no labels", "add AsDiscreted to the bundle's postprocessing"
        )
    return [labels == rule.channel for rule in rules]


def _layers(masks: list[NDArray[np.bool_]], grid: Grid, source: Grid) -> list[NDArray[np.uint8]]:
    """Label maps on `source` in which nothing overlaps, as few as go; rule n (from 1) is voxel value n."""
    if len(masks) > _MOST_LABELS:
        raise PipelineError(f"{len(masks)} segments, at most {_MOST_LABELS} can be told apart", "name fewer in pipeline.toml")
    layers: list[NDArray[np.uint8]] = [np.zeros(grid.shape, dtype=np.uint8)]
    for number, mask in enumerate(masks, start=1):
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            free = np.zeros(grid.shape, dtype=np.uint8)
            layers.append(free)
        free[mask] = number
    if same_grid(grid, source):
        return layers
    return [nearest_on(layer, grid, source) for layer in layers]
