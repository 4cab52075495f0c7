"""The other side of the comparison: a bundle as a MONAI script runs it, from files to a file.

LoadImage with PydicomReader, the bundle's transforms, sliding_window_inference, Invertd, SaveImage: what the tutorials show, in
fp32, with nothing taken away. It checks no geometry and makes no findings.
"""

import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from monai.inferers import sliding_window_inference
from monai.transforms import Compose
from numpy.typing import NDArray
from safetensors.torch import load_file

from dicomnode.engines.spatial import grid_of
from dicomnode.imaging.resampling import canonical

_SAVE = {"_target_": "SaveImaged", "keys": "pred", "output_postfix": "seg", "separate_folder": False, "print_log": False}


class NaiveScript:
    """One bundle folder, run as its own configuration says; the network stays loaded from study to study."""

    def __init__(self, bundle: Path, device: str) -> None:
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        for step in config["preprocessing"]["transforms"]:
            if step["_target_"] == "LoadImaged":
                step["reader"] = "PydicomReader"
        self._out = tempfile.TemporaryDirectory(prefix="dicomnode-naive-")
        config["postprocessing"]["transforms"].append({**_SAVE, "output_dir": self._out.name})
        parser = ConfigParser(config)
        self._device = torch.device(device)
        self._network = parser.get_parsed_content("network_def").eval().to(self._device)
        self._network.load_state_dict(load_file(bundle / "models" / "model.safetensors"))
        preprocessing, postprocessing = (parser.get_parsed_content(key) for key in ("preprocessing", "postprocessing"))
        self._load, self._prepare = preprocessing.transforms[0], Compose(preprocessing.transforms[1:])
        self._finish = postprocessing
        self._inferer = {key: value for key, value in config["inferer"].items() if key != "_target_"}

    def run(self, folder: Path) -> dict[str, float]:
        """Seconds of each step."""
        self._labels: Any = None  # an earlier result is no part of what the next series needs
        marks = [time.perf_counter()]
        item: dict[str, Any] = self._load({"image": str(folder)})
        marks.append(time.perf_counter())
        batch = list_data_collate([self._prepare(item)])
        marks.append(time.perf_counter())
        with torch.no_grad():
            batch["pred"] = sliding_window_inference(batch["image"].to(self._device), predictor=self._network, **self._inferer)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        self._labels = self._finish(decollate_batch(batch)[0])["pred"].cpu()
        marks.append(time.perf_counter())
        steps = ("decode", "preprocess", "forward", "postprocess")
        return {step: end - begin for step, (begin, end) in zip(steps, pairwise(marks), strict=True)}

    def lungs(self) -> NDArray[np.bool_]:
        """Where the last run found lung or lesion, (z, y, x) on canonical axes."""
        grid = grid_of(self._labels.shape[1:], np.asarray(self._labels.affine, dtype=float))
        return canonical(np.asarray(self._labels[0]).transpose(2, 1, 0) > 0, grid)[0]
