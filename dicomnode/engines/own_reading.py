"""`postprocess = "bundle"`: a series (or several) through a bundle's own way, to what the sidecar names."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from monai.data import MetaTensor

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.engines import own_way
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.explaining import activation_map, reconstruction
from dicomnode.engines.instances import with_instances
from dicomnode.engines.joining import joined
from dicomnode.engines.ladder import Descent
from dicomnode.engines.memory import image_tensor, volume_grid, volumes_tensor
from dicomnode.engines.own_boxes import Tracked, boxes, lesions
from dicomnode.engines.own_maps import label_maps
from dicomnode.engines.own_statements import statements
from dicomnode.engines.sidecar import RunRules, Sidecar
from dicomnode.engines.spatial import grid_of, meta_tensor, network_grid
from dicomnode.engines.values import Conclusion, Progress
from dicomnode.imaging.resampling import Grid, linear_on

_OF_BOXES = "sizes and volumes are those of the detector's boxes, not of outlined lesions"


class OwnReading:
    """One image, with the other series of its study where the bundle wants several, through one bundle."""

    def __init__(self, sidecar: Sidecar, bundle: Bundle, digest: str) -> None:
        self._sidecar = sidecar
        self._bundle = bundle
        self._digest = digest
        self._keys = own_way.Keys(sidecar.bundle.image_key, sidecar.bundle.prediction_key)

    def read(
        self, image: Volume | Image2D, others: Mapping[str, Volume], *, run: RunRules, tell: Progress
    ) -> tuple[Conclusion, dict[str, float], Descent] | Refusal:
        """What the bundle finds, seconds of each step, how the network was run. Raises PipelineError, ResourceExhausted."""
        began = time.perf_counter()
        source, item = self._item(image, others)
        if isinstance(item, Refusal):
            return item
        with self._bundle.own_code.importable() if self._bundle.own_code is not None else nullcontext():
            return self._run(item, image, source, run, began, tell)

    def _run(
        self, item: dict[str, Any], image: Volume | Image2D, source: Grid, run: RunRules, began: float, tell: Progress
    ) -> tuple[Conclusion, dict[str, float], Descent]:
        ours = own_way.taken_over(self._bundle, self._keys) if run.own_resampling and self._is_one_volume(image) else 0
        if ours and isinstance(image, Volume):
            grid = network_grid(self._bundle.preprocessing[:ours], source)
            item = {self._keys.image: meta_tensor(linear_on(image.pixels, source, grid), grid, channel=True)}
        item = own_way.preprocess(self._bundle.preprocessing[ours:], item)
        preprocessed = time.perf_counter()
        tell("forward", 0.2)
        item, descent = own_way.predict(self._bundle, item, self._keys, bfloat16=run.bfloat16)
        predicted = time.perf_counter()
        tell("postprocess", 0.8)
        conclusion = self._concluded(item, image, source, own_inverse=ours > 0)
        done = time.perf_counter()
        tell("postprocess", 1.0)
        timings_s = {
            "preprocess": preprocessed - began,
            "forward": predicted - preprocessed,
            "postprocess": done - predicted,
        }
        return conclusion, timings_s, descent

    def _item(self, image: Volume | Image2D, others: Mapping[str, Volume]) -> tuple[Grid, dict[str, Any] | Refusal]:
        """The source grid and what the bundle's loading would have given."""
        rules = self._sidecar.bundle
        if isinstance(image, Image2D):
            tensor = image_tensor(image, rules.image_channels)
            rows, columns = image.pixels.shape
            return grid_of((columns, rows, 1), np.eye(4)), {rules.image_key: tensor}
        source = volume_grid(image)
        if len(self._sidecar.series) < 2:
            return source, {rules.image_key: volumes_tensor([image.pixels], source)}
        pixels = joined(image, others, self._sidecar.series)
        if isinstance(pixels, Refusal):
            return source, pixels
        if rules.series_as == "channels":
            return source, {rules.image_key: volumes_tensor(pixels, source)}
        return source, {name: volumes_tensor([one], source) for name, one in zip(self._sidecar.series, pixels, strict=True)}

    def _is_one_volume(self, image: Volume | Image2D) -> bool:
        return isinstance(image, Volume) and len(self._sidecar.series) < 2

    def _concluded(self, item: dict[str, Any], image: Volume | Image2D, source: Grid, *, own_inverse: bool) -> Conclusion:
        rules = self._sidecar
        if rules.task == "detection":
            return self._detected(item, image, source)
        if rules.task == "classification":
            return self._classified(item, source)
        if rules.task == "anomaly" and rules.anomaly is not None:
            made = own_way.postprocess(own_way.steps_for_boxes(self._bundle), item)
            said, where = reconstruction(made[self._keys.prediction], item[self._keys.image], rules.anomaly, source)
            return Conclusion(classifications=(said,), heatmaps=(where,))
        steps = own_way.steps_for_maps(self._bundle, self._keys, source, rules.bundle.activation, own_inverse=own_inverse)
        prediction = own_way.postprocess(steps, item)[self._keys.prediction]
        maps = label_maps(prediction, rules.segments, source, _voxel_ml(image))
        maps, notes = with_instances(maps, rules.segments, _voxel_ml(image), (image.series_instance_uid, self._digest))
        return Conclusion(label_maps=maps, warnings=notes)

    def _classified(self, item: dict[str, Any], source: Grid) -> Conclusion:
        rules = self._sidecar
        image = item[self._keys.image]
        steps = own_way.steps_for_statements(self._bundle, self._keys, rules.bundle.activation)
        said = statements(own_way.postprocess(steps, item)[self._keys.prediction], rules)
        if rules.heatmap is None or rules.heatmap.method == "probability":
            return Conclusion(classifications=said)
        return Conclusion(classifications=said, heatmaps=(activation_map(self._bundle, image, rules.heatmap, source),))

    def _detected(self, item: dict[str, Any], image: Volume | Image2D, source: Grid) -> Conclusion:
        if self._sidecar.boxes is None or not isinstance(item[self._keys.image], MetaTensor):
            raise PipelineError("the preprocessed image lost its place in the patient", "keep it a MetaTensor in preprocessing")
        item = own_way.postprocess(own_way.steps_for_boxes(self._bundle), item)
        found, left_out = boxes(item, item[self._keys.image], self._sidecar.boxes, source)
        warnings = (f"{left_out} more findings were left out, the most probable are reported",) if left_out else ()
        if isinstance(image, Image2D):
            # PS3.3 10.7: the size of a pixel of a projection is not the size of what it shows, so nothing is measured.
            shown = (f"{len(found)} boxes were found, which the objects do not show",) if found else ()
            return Conclusion(boxes=found, warnings=(*warnings, *shown))
        tracked = Tracked(self._sidecar.name, image.series_instance_uid, self._digest)
        measured = lesions(found, image, source, tracked)
        of_boxes = (_OF_BOXES,) if measured else ()
        return Conclusion(lesions=measured, lesions_sought=True, boxes=found, warnings=(*warnings, *of_boxes))


def _voxel_ml(image: Volume | Image2D) -> float:
    """0 for a projection: its pixels have no volume."""
    return image.voxel_ml if isinstance(image, Volume) else 0.0
