"""What a classifier looked at (class-activation maps), where an autoencoder's image differs: heat maps on the source grid."""

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Classification, Code, HeatMap
from dicomnode.domain.imaging import read_only
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.coding import private_code
from dicomnode.engines.own_statements import platt
from dicomnode.engines.own_way import grid_of_map, map_array
from dicomnode.engines.reasons import first_line
from dicomnode.engines.rules import AnomalyRules, HeatMapRules
from dicomnode.engines.spatial import same_grid
from dicomnode.imaging.resampling import Grid, slices_on


def activation_map(bundle: Bundle, image: Any, rules: HeatMapRules, source: Grid) -> HeatMap:
    """MONAI's GradCAM or CAM of one class of the preprocessed `image`, 1 where the network looked most. Raises PipelineError.

    The values are relative to the map's own largest: they say where, not how much.
    """
    from monai.visualize import CAM, GradCAM

    given = torch.tensor(np.asarray(torch.as_tensor(image)), dtype=torch.float32, device=bundle.device)[None]
    try:
        with torch.enable_grad():
            if rules.method == "cam":
                cam = CAM(bundle.network, target_layers=rules.layer, fc_layers=rules.head)
                found = cam.compute_map(given, class_idx=[rules.channel])
            else:
                found = GradCAM(bundle.network, target_layers=rules.layer).compute_map(given, class_idx=rules.channel)
            found = torch.relu(found).detach()
    except Exception as error:  # a wrong layer, a network that cannot be followed backwards
        raise PipelineError(
            f"no class-activation map could be made: {first_line(error)}", "correct layer and channel in [heatmap]"
        ) from error
    mode = "trilinear" if found.ndim == 5 else "bilinear"
    grown = torch.nn.functional.interpolate(found.float(), size=given.shape[2:], mode=mode, align_corners=False)[0].cpu()
    largest = float(grown.max())
    return heat_map(rules.name, _placed(grown / largest if largest > 0 else grown, image), source, largest=1.0)


def reconstruction(prediction: Any, image: Any, rules: AnomalyRules, source: Grid) -> tuple[Classification, HeatMap]:
    """How far an image is from what an autoencoder makes of it: a statement, and where. Raises PipelineError.

    Without a fitted calibration the probability only orders: it is 0.5 at the threshold.
    """
    if not isinstance(prediction, torch.Tensor) or prediction.shape != image.shape:
        raise PipelineError(
            "the autoencoder's image has another shape than its input", "correct the network or its postprocessing"
        )
    plain = torch.as_tensor(np.asarray(image)).float()
    difference = (torch.as_tensor(np.asarray(prediction)).float() - plain).abs().mean(dim=0, keepdim=True)
    score = float(difference.mean())
    present = score > rules.threshold
    statement = Classification(
        name=rules.name,
        finding=private_code("unlike the training images"),
        value="present" if present else "absent",
        value_code=Code("52101004", "SCT", "Present") if present else Code("272519000", "SCT", "Absent"),
        probability=platt(score / (score + rules.threshold), rules.calibration),
        threshold=platt(0.5, rules.calibration),
    )
    return statement, heat_map(rules.name, _placed(difference, image), source, largest=rules.largest)


def heat_map(name: str, values: torch.Tensor, source: Grid, *, largest: float) -> HeatMap:
    """A map (1, x, y[, z]) on the source grid, in 255 steps from 0 to `largest`."""
    grid, array = grid_of_map(values), map_array(values)
    shown = np.empty(source.shape, dtype=np.uint8)
    planes: Any = (array[:, z] for z in range(array.shape[1])) if same_grid(grid, source) else slices_on(array, grid, source)
    for index, plane in enumerate(planes):
        shown[index] = _steps(plane[0], largest)
    return HeatMap(name, read_only(shown), minimum=0.0, scale=largest / 255)


def _steps(plane: NDArray[Any], largest: float) -> NDArray[np.uint8]:
    return np.rint(np.clip(plane / largest, 0, 1) * 255).astype(np.uint8)


def _placed(values: torch.Tensor, image: Any) -> torch.Tensor:
    if not isinstance(image, MetaTensor):
        raise PipelineError("the preprocessed image lost its place in the patient", "keep it a MetaTensor in preprocessing")
    placed: torch.Tensor = MetaTensor(values, affine=image.affine)
    return placed
