"""A Model Zoo bundle as its authors run it, from memory: its preprocessing, network, inferer and postprocessing.

What is ours: loading and saving (`memory`), the step back to the source grid where the bundle has none, and leaving out the
steps behind which nothing could be measured any more (a class index instead of probabilities, boxes in world coordinates).
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.dictionary import (
    AffineBoxToWorldCoordinated,
    ConvertBoxModed,
    ConvertBoxToStandardModed,
)
from monai.data import MetaTensor
from monai.transforms import Activationsd, AsDiscreted, DeleteItemsd, EnsureChannelFirstd, Invertd, Spacingd

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.devices import computing, is_out_of_memory
from dicomnode.engines.ladder import Descent, Rung, with_less_memory
from dicomnode.engines.memory import FromMemoryd, image_tensor, volume_grid, volumes_tensor
from dicomnode.engines.reasons import first_line
from dicomnode.engines.sidecar import BundleRules
from dicomnode.engines.spatial import grid_of, leading_spatial_steps, ras_affine, same_grid
from dicomnode.imaging.resampling import Grid, labels_on, slices_on

_log = logging.getLogger(__name__)

Item = dict[str, Any]
_MOST_CHANNELS = 256  # labels are uint8
_NEVER = (DeleteItemsd,)  # of what we still need
_OF_BOXES = (AffineBoxToWorldCoordinated, ConvertBoxModed, ConvertBoxToStandardModed, Invertd)


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under which a bundle keeps its image and its prediction."""

    image: str
    prediction: str


def preprocess(steps: Sequence[Callable[[Item], Item]], item: Item) -> Item:
    """`item` through these steps of a bundle's preprocessing. Raises PipelineError, ResourceExhausted."""
    with _named("preprocessing", "memory ran out while preprocessing"):
        for step in steps:
            item = step(item)
        return item


def preprocessed(image: Volume | Image2D, rules: BundleRules, steps: Sequence[Callable[[Item], Item]]) -> torch.Tensor:
    """One image through all of a bundle's preprocessing: (channels, x, y[, z]) float32. Raises as `preprocess`."""
    if isinstance(image, Image2D):
        item: Item = {rules.image_key: image_tensor(image, rules.image_channels)}
    else:
        item = {rules.image_key: volumes_tensor([image.pixels], volume_grid(image))}
    made = torch.as_tensor(preprocess(steps, item)[rules.image_key])
    return (made.as_tensor() if isinstance(made, MetaTensor) else made).float()


def predict(bundle: Bundle, item: Item, keys: Keys, *, bfloat16: bool) -> tuple[Item, Descent]:
    """`item` with what the inferer gives for its image: a tensor without batch axis, or the network's own dictionary.

    And how that was had.
    """
    if keys.image not in item:
        raise PipelineError(
            f"preprocessing gives no {keys.image!r}, only {', '.join(map(str, item))}", "set bundle.image_key in pipeline.toml"
        )
    image = item[keys.image]
    batch = torch.as_tensor(image)[None].float()
    batch = batch.as_tensor() if isinstance(batch, MetaTensor) else batch

    def forward(rung: Rung) -> Any:
        with computing(rung.device, bfloat16=bfloat16 and rung.device == bundle.device):
            return bundle.inferer(batch.to(rung.device), bundle.network)

    output, descent = with_less_memory(bundle, forward)
    return {**item, **_unbatched(output, image, keys)}, descent


def _unbatched(output: Any, image: Any, keys: Keys) -> Item:
    """The first of a batch of one. A detector's dictionary also stands by its own names, as its transforms want it."""
    if isinstance(output, torch.Tensor):
        return {keys.prediction: _placed(output[0].float().cpu(), image)}
    if isinstance(output, list | tuple) and len(output) == 1:
        output = output[0]
    if isinstance(output, Mapping) and all(isinstance(value, torch.Tensor) for value in output.values()):
        tensors = {str(name): value.cpu() for name, value in output.items()}
        return {**{name: value for name, value in tensors.items() if name != keys.image}, keys.prediction: tensors}
    what = f"{len(output)} outputs" if isinstance(output, list | tuple) else f"a {type(output).__name__}"
    raise PipelineError(
        f"the network gives {what}, one tensor or one dictionary of tensors expected", "use a network with one output"
    )


def _placed(prediction: torch.Tensor, image: Any) -> torch.Tensor:
    """A map on its image's grid lies where the image lies, and remembers what was done to it."""
    if not isinstance(image, MetaTensor) or prediction.shape[1:] != image.shape[1:]:
        return prediction
    placed: torch.Tensor = MetaTensor(prediction, meta=dict(image.meta), applied_operations=list(image.applied_operations))
    return placed


def postprocess(steps: Sequence[Callable[[Item], Item]], item: Item) -> Item:
    """`item` through these steps. Raises PipelineError, ResourceExhausted."""
    with _named("postprocessing", "memory ran out while postprocessing"):
        for step in steps:
            item = step(item)
        return item


def taken_over(bundle: Bundle, keys: Keys) -> int:
    """How many of the first transforms our resampling can stand for, and its way back for their inverse; 0: none.

    They load, make the channel axis, turn and resample one image, and nothing but the prediction is brought back.
    """
    loaders = [step for step in bundle.preprocessing[:1] if isinstance(step, FromMemoryd)]
    count = leading_spatial_steps(bundle.preprocessing[len(loaders) :], keys.image)
    followed = bundle.preprocessing[len(loaders) : len(loaders) + count]
    makes_channel = any(loader.makes_channel for loader in loaders) or any(isinstance(s, EnsureChannelFirstd) for s in followed)
    inverses = [step for step in bundle.postprocessing if isinstance(step, Invertd)]
    plain = all(tuple(one.keys) == (keys.prediction,) and not any(map(callable, one.post_func)) for one in inverses)
    resamples = any(isinstance(step, Spacingd) for step in followed)
    return len(loaders) + count if makes_channel and plain and resamples else 0


def steps_for_maps(
    bundle: Bundle, keys: Keys, source: Grid, activation: str, *, own_inverse: bool
) -> list[Callable[[Item], Item]]:
    """The bundle's postprocessing so that it ends on `source`; own_inverse: without its Invertd.

    Discrete values are never interpolated: an inverse after argmax takes the nearest voxel, whatever it says. Where there is no
    inverse, probabilities are interpolated onto `source` before they are made discrete.
    """
    steps = [step for step in bundle.postprocessing if not isinstance(step, (*_NEVER, Invertd) if own_inverse else _NEVER)]
    if _first(steps, Activationsd, keys.prediction) is None and _first(steps, AsDiscreted, keys.prediction) is None:
        steps.insert(0, lambda item: {**item, keys.prediction: activated(item[keys.prediction], activation)})
    inverse = _first(steps, Invertd, keys.prediction)
    discrete = _first(steps, AsDiscreted, keys.prediction)
    if inverse is None and discrete is not None and _is_plain_argmax(steps[discrete]):
        steps[discrete] = lambda item: {**item, keys.prediction: _labels_moved(item[keys.prediction], source)}
    elif inverse is None:
        place = len(steps) if discrete is None else discrete
        steps.insert(place, lambda item: {**item, keys.prediction: _moved(item[keys.prediction], source)})
    elif discrete is not None and discrete < inverse and steps[discrete].argmax[0]:
        if not all(steps[inverse].nearest_interp):
            _log.warning("the bundle's inverse would interpolate labels: the nearest voxel is taken instead")
        steps[inverse].nearest_interp = tuple(True for _ in steps[inverse].nearest_interp)
    return steps


def steps_for_statements(bundle: Bundle, keys: Keys, activation: str) -> list[Callable[[Item], Item]]:
    """The bundle's postprocessing as far as it gives probabilities."""
    steps = [step for step in bundle.postprocessing if not isinstance(step, (*_NEVER, AsDiscreted, Invertd))]
    if _first(steps, Activationsd, keys.prediction) is None:
        steps.append(lambda item: {**item, keys.prediction: activated(item[keys.prediction], activation)})
    return steps


def steps_for_boxes(bundle: Bundle) -> list[Callable[[Item], Item]]:
    """The bundle's postprocessing as far as it leaves boxes in the voxels of the preprocessed image."""
    return [step for step in bundle.postprocessing if not isinstance(step, (*_NEVER, *_OF_BOXES))]


def activated(values: torch.Tensor, activation: str) -> torch.Tensor:
    """Probabilities of logits (channel, …)."""
    if activation == "softmax":
        return torch.softmax(values, dim=0)
    return torch.sigmoid(values) if activation == "sigmoid" else values


def grid_of_map(values: torch.Tensor) -> Grid:
    """Where a map (channel, x, y[, z]) lies. Raises PipelineError for one that lies nowhere."""
    if not isinstance(values, MetaTensor):
        raise PipelineError(
            f"the network gives a map of shape {tuple(values.shape)}, not of its image's", "use an inferer that keeps the shape"
        )
    sizes = (*values.shape[1:], 1)[:3]
    return grid_of(sizes, values.affine.cpu().numpy().astype(float))


def map_array(values: torch.Tensor) -> np.ndarray[Any, Any]:
    """(channel, x, y[, z]) → (channel, z, y, x)."""
    volume = values[..., None] if values.ndim == 3 else values
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    return plain.permute(0, 3, 2, 1).cpu().numpy()


def _moved(values: torch.Tensor, target: Grid) -> torch.Tensor:
    """A map of probabilities, linearly interpolated onto `target`."""
    grid = grid_of_map(values)
    if same_grid(grid, target):
        return values
    moved = np.stack(list(slices_on(map_array(values), grid, target)), axis=1)
    return _map_tensor(moved, target, values.ndim)


def _labels_moved(values: torch.Tensor, target: Grid) -> torch.Tensor:
    """The most probable channel of each voxel of `target`, one channel of labels; no channel is ever held there as a whole."""
    if len(values) > _MOST_CHANNELS:
        raise PipelineError(
            f"the network has {len(values)} channels, at most {_MOST_CHANNELS} are read", "use a smaller network"
        )
    return _map_tensor(labels_on(map_array(values), grid_of_map(values), target)[None], target, values.ndim)


def _map_tensor(array: np.ndarray[Any, Any], grid: Grid, axes: int) -> torch.Tensor:
    """(channel, z, y, x) on `grid` → MONAI's (channel, x, y[, z])."""
    tensor = torch.as_tensor(array).permute(0, 3, 2, 1)
    placed: torch.Tensor = MetaTensor(tensor[..., 0] if axes == 3 else tensor, affine=torch.as_tensor(ras_affine(grid)))
    return placed


def _is_plain_argmax(step: Any) -> bool:
    """Whether an AsDiscreted only names the most probable channel."""
    return (
        len(step.keys) == 1
        and not step.converter.kwargs
        and step.argmax == (True,)
        and all(tuple(one) == (None,) for one in (step.to_onehot, step.threshold, step.rounding))
    )


def _first(steps: Sequence[Any], kind: Any, key: str) -> int | None:
    return next((place for place, step in enumerate(steps) if isinstance(step, kind) and key in step.keys), None)


@contextmanager
def _named(what: str, memory: str) -> Iterator[None]:
    """Whatever a bundle's transforms raise on this input, as an error of the pipeline; their warnings are not ours."""
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            yield
    except PipelineError:
        raise
    except Exception as error:  # see above
        if is_out_of_memory(error):
            raise ResourceExhausted(memory, "give the worker more memory") from error
        raise PipelineError(f"{what} failed: {first_line(error)}", f"check the bundle's {what}") from error
