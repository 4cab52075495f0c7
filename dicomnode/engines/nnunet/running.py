"""An nnU-Net v2 model in memory. This module loads torch and nnunetv2."""

import contextlib
import io
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.domain.findings import LabelMap
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume, read_only
from dicomnode.engines.devices import is_out_of_memory
from dicomnode.engines.digest import bundle_digest
from dicomnode.engines.instances import with_instances
from dicomnode.engines.joining import joined
from dicomnode.engines.nnunet.folder import DATASET, INSTALL, PLANS, channels_of, checkpoints, plan_objections
from dicomnode.engines.reasons import first_line
from dicomnode.engines.safety import read_config
from dicomnode.engines.segments import segments_of
from dicomnode.engines.sidecar import Sidecar
from dicomnode.engines.values import Conclusion, Progress
from dicomnode.imaging.resampling import Grid, nearest_on, oriented

# What training saves beside the weights: numbers of its log. They are data; nothing else of numpy is let in.
_NUMPY_DATA: tuple[Any, ...] = (
    *(np.dtype, np.ndarray, multiarray.scalar, multiarray._reconstruct),  # noqa: SLF001 - what pickle calls
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "u8", "?")),
)


class NnunetEngine:
    """One model with all its folds, warm."""

    def __init__(self, folder: Path, sidecar: Sidecar, device: torch.device) -> None:
        self.device = device
        self._sidecar = sidecar
        self._digest = bundle_digest(folder)
        plans, dataset = read_config(folder / PLANS), read_config(folder / DATASET)
        if objection := next(plan_objections(plans), None):
            raise PipelineError(f"{folder.name}: {objection}", "only models of an unchanged nnU-Net v2 are run")
        self._channels = channels_of(dataset)
        saved = [_checkpoint(path) for path in checkpoints(folder, sidecar.nnunet)]
        with _quiet(), _named("the model cannot be built", "check plans.json, dataset.json and the checkpoints"):
            self._predictor = _predictor(plans, dataset, saved, sidecar, device)

    def read(
        self, image: Volume | Image2D, others: Mapping[str, Volume], tell: Progress
    ) -> tuple[Conclusion, dict[str, float]] | Refusal:
        """Label maps on the grid of `image`, and seconds. Raises PipelineError, ResourceExhausted."""
        began = time.perf_counter()
        if isinstance(image, Image2D):
            return Refusal(RefusalCode.UNSUPPORTED_CLASS, "a projection image, a volume expected", "correct the route")
        series = joined(image, others, self._sidecar.series)
        if isinstance(series, Refusal):
            return series
        source = Grid(image.shape, image.affine)
        axes = self._sidecar.nnunet.axes[::-1]  # ours run z, y, x
        turned, grid = zip(*(oriented(one, source, axes) for one in series), strict=True)
        data = np.stack([np.asarray(one, dtype=np.float32) for one in turned])
        tell("forward", 0.1)
        prepared = time.perf_counter()
        labels = self._labels(data, grid[0])
        predicted = time.perf_counter()
        tell("postprocess", 0.9)
        conclusion = self._concluded(nearest_on(labels, grid[0], source), source, image.series_instance_uid)
        seconds = {"preprocess": prepared - began, "forward": predicted - prepared}
        return conclusion, {**seconds, "postprocess": time.perf_counter() - predicted}

    def _labels(self, data: NDArray[np.float32], grid: Grid) -> NDArray[Any]:
        properties = {"spacing": [float(one) for one in grid.spacing_mm]}
        with _quiet(), _named("the model failed", "check that the series is what the model was trained on"):
            return np.asarray(self._predictor.predict_single_npy_array(data, properties, None, None, False))

    def _concluded(self, found: NDArray[Any], source: Grid, series_instance_uid: str) -> Conclusion:
        labels = np.zeros(source.shape, dtype=np.uint8)
        for number, rule in enumerate(self._sidecar.segments, start=1):
            labels[found == rule.channel] = number
        segments = segments_of(labels, self._sidecar.segments, source)
        whole = (LabelMap("segments", read_only(labels), segments),) if segments else ()
        maps, notes = with_instances(whole, self._sidecar.segments, source.voxel_ml, (series_instance_uid, self._digest))
        return Conclusion(label_maps=maps, warnings=notes)


def _checkpoint(path: Path) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(list(_NUMPY_DATA)):
            saved = torch.load(path, map_location="cpu", weights_only=True)
        weights = {str(name): torch.as_tensor(value) for name, value in saved["network_weights"].items()}
        return {"network_weights": weights, "configuration": str(saved["init_args"]["configuration"]), **_mirroring(saved)}
    except Exception as error:  # pickle, zip and a foreign layout each raise their own
        raise PipelineError(
            f"{path.name} cannot be read as plain tensors of nnU-Net: {first_line(error)}",
            "train or export it again with an unchanged nnU-Net v2",
        ) from error


def _mirroring(saved: Mapping[str, Any]) -> dict[str, Any]:
    axes = saved.get("inference_allowed_mirroring_axes")
    return {"mirroring": None if axes is None else tuple(int(axis) for axis in axes)}


def _predictor(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], saved: list[Mapping[str, Any]], sidecar: Sidecar, device: torch.device
) -> Any:
    try:
        # It warns of three folders for training data, which nobody needs here.
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ImportError as error:
        raise PipelineError(f"nnunetv2 cannot be imported: {first_line(error)}", INSTALL) from error
    manager = PlansManager(dict(plans))
    configuration = manager.get_configuration(saved[0]["configuration"])
    channels = determine_num_input_channels(manager, configuration, dataset)
    if channels != len(channels_of(dataset)):
        raise PipelineError("it is the second stage of a cascade", "use the full-resolution or low-resolution model alone")
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels,
        manager.get_label_manager(dataset).num_segmentation_heads,
        allow_init=False,
        deep_supervision=False,
    )
    network.load_state_dict(saved[0]["network_weights"])
    rules = sidecar.nnunet
    predictor = nnUNetPredictor(
        tile_step_size=rules.tile_step, use_mirroring=rules.mirroring, device=device, allow_tqdm=False, verbose=False
    )
    weights = [one["network_weights"] for one in saved]
    mirroring = saved[0]["mirroring"] if rules.mirroring else None
    predictor.manual_initialization(network, manager, configuration, weights, dataset, "nnUNetTrainer", mirroring)
    return predictor


@contextmanager
def _quiet() -> Iterator[None]:
    """nnU-Net prints, warns and shows bars; its environment variables point to training data that a node has not."""
    before = dict(os.environ)
    os.environ.update(
        {name: os.environ.get(name, "unused") for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    )
    os.environ.setdefault("nnUNet_n_proc_DA", "0")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]


@contextmanager
def _named(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # whatever nnU-Net raises on this model or image
        if is_out_of_memory(error):
            raise ResourceExhausted("memory ran out in the network", "give the worker more memory, or use the CPU") from error
        raise PipelineError(f"{what}: {first_line(error)}", remedy) from error
