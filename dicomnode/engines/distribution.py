"""Does an image look like those that the model was trained on? A distance in the space of features, against a limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Classification
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines.arrays import distance, read_arrays
from dicomnode.engines.coding import private_code
from dicomnode.engines.series_features import series_features
from dicomnode.engines.sidecar import Sidecar

if TYPE_CHECKING:
    from dicomnode.engines.bundle import Bundle

NAME = "training data"  # of the statement
_LARGEST_SIDE = 64  # voxels of what the network sees for this question alone
_DIVISOR = 16


class Distribution:
    """What `[distribution]` of a pipeline knows of its training data."""

    def __init__(self, folder: Path, sidecar: Sidecar, bundle: "Bundle | None") -> None:
        if sidecar.distribution is None:
            raise PipelineError(f"{sidecar.name} has no [distribution]", "add the table to pipeline.toml")
        self._rules, self._sidecar, self._bundle = sidecar.distribution, sidecar, bundle
        self._arrays = read_arrays(folder / self._rules.weights)

    def row(self, image: Volume | Image2D) -> NDArray[np.float32]:
        """What `judge` and `statement` want to know of an image. Raises PipelineError."""
        return features(image, self._sidecar, self._bundle)

    def judge(self, row: NDArray[np.float32]) -> Refusal | str | None:
        """A refusal, or a warning where the pipeline asks for no more; None for what looks familiar. Raises PipelineError."""
        score = distance(self._arrays, row)
        if score <= 1.0:
            return None
        said = f"the image is unlike those that the model was trained on (distance {score:.1f} × the limit)"
        if not self._rules.refuse:
            return f"{said}; its results are not to be relied on"
        return Refusal(RefusalCode.OUT_OF_DISTRIBUTION, said, "have it read without this model")

    def statement(self, row: NDArray[np.float32]) -> Classification:
        """The same as a statement. Its probability is the share of training images, left out in turn, that lay nearer."""
        score = distance(self._arrays, row)
        known = self._arrays["left_out"]
        nearer = float((known < score).sum()) / (len(known) + 1)
        far = score > 1.0
        return Classification(
            name=NAME,
            finding=private_code("distribution of the training data"),
            value="outside" if far else "inside",
            value_code=private_code("outside the training data" if far else "inside the training data"),
            probability=nearer if far else 1.0 - nearer,
            threshold=0.0,
        )


def features(image: Volume | Image2D, sidecar: Sidecar, bundle: "Bundle | None") -> NDArray[np.float32]:
    """The row of features that `[distribution]` names. Raises PipelineError."""
    rules = sidecar.distribution
    if rules is None or rules.features == "image":
        return series_features(image)
    if bundle is None:
        raise PipelineError('features = "network" needs a MONAI bundle', 'use features = "image"')
    return network_features(image, sidecar, bundle, rules.layer)


def network_features(image: Volume | Image2D, sidecar: Sidecar, bundle: "Bundle", layer: str) -> NDArray[np.float32]:
    """The mean of each channel at `layer`, the whole preprocessed image seen at once and small. Raises PipelineError."""
    import torch

    from dicomnode.engines.own_way import preprocessed

    prepared = preprocessed(image, sidecar.bundle, bundle.preprocessing)[None]
    sizes = [max(_DIVISOR, min(_LARGEST_SIDE, size // _DIVISOR * _DIVISOR)) for size in prepared.shape[2:]]
    mode = "trilinear" if len(sizes) == 3 else "bilinear"
    with torch.inference_mode(), listening(bundle.network, layer) as heard:
        small = torch.nn.functional.interpolate(prepared, size=sizes, mode=mode, align_corners=False)
        bundle.network(small.to(bundle.device))
    if not heard:
        raise PipelineError(f"the network does not pass its layer {layer!r}", "name another layer in [distribution]")
    values = heard[-1].float()
    return np.asarray(values.flatten(2).mean(dim=2)[0].cpu().numpy(), dtype=np.float32)


@contextmanager
def listening(network: Any, layer: str) -> Iterator[list[Any]]:
    """What the layer of this name gives while the network runs. Raises PipelineError where there is none."""
    modules = dict(network.named_modules())
    if layer not in modules:
        near = ", ".join(name for name in modules if name)[:300]
        raise PipelineError(f"the network has no layer {layer!r}", f"it has {near}")
    heard: list[Any] = []
    handle = modules[layer].register_forward_hook(lambda _module, _given, made: heard.append(made))
    try:
        yield heard
    finally:
        handle.remove()
