"""A loaded pipeline: one image in, Findings or a Refusal out. Torch is loaded only by `load_pipeline`."""

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dicomnode.domain.errors import ResourceExhausted
from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines.admission import input_warnings, refuse_input
from dicomnode.engines.catalogue import describe
from dicomnode.engines.chest.reading import ChestReading
from dicomnode.engines.segments import SegmentsReading
from dicomnode.engines.sidecar import RunRules, Sidecar, read_sidecar
from dicomnode.engines.values import Case, Conclusion, NetworkInput, Prediction, Progress, Reading

if TYPE_CHECKING:
    from dicomnode.engines.bundle import Bundle

Speed = Literal["exact", "fast"]

# What a prediction is made into, by `postprocess` in pipeline.toml. A new kind is one file and one line here.
READINGS: Mapping[str, Callable[[Case], Reading]] = {"chest": ChestReading, "segments": SegmentsReading}


def load_pipeline(folder: Path, *, device: str = "auto", trusted_digests: frozenset[str] = frozenset()) -> "Pipeline":
    """Checks and loads the pipeline in `folder` onto "auto", "cpu", "cuda" or "cuda:N"; seconds, mostly for importing torch.

    Code of the bundle runs only if its digest is in `trusted_digests`. Raises PipelineError.
    """
    sidecar = read_sidecar(folder)
    identity = describe(folder).identity
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI and torch warn of their own deprecations at import and in constructors
        from dicomnode.engines.bundle import load_bundle
        from dicomnode.engines.devices import choose_device

        bundle = load_bundle(folder, sidecar, choose_device(device), trusted=identity.digest in trusted_digests)
    return Pipeline(sidecar, bundle, identity)


class Pipeline:
    """One model, warm. One image gives the same Findings each time; at speed "fast" a timing chooses the precision."""

    def __init__(self, sidecar: Sidecar, bundle: "Bundle", identity: ModelIdentity) -> None:
        self.identity = identity
        self.sidecar = sidecar
        self._bundle = bundle
        self._one_at_a_time = threading.Lock()  # the inferer and cuDNN's settings are shared
        self._bfloat16: bool | None = None

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda:N"."""
        return str(self._bundle.device)

    def run(
        self,
        image: Volume | Image2D,
        *,
        speed: Speed = "exact",
        progress: Progress | None = None,
        others: Mapping[str, Volume] | None = None,
    ) -> Findings | Refusal:
        """Findings on the image's own grid, or why there are none.

        others: further series of the study by the names of `bundle.series`, for a model that reads several together.
        Timings "preprocess", "forward", "postprocess" in seconds. Raises PipelineError, ResourceExhausted (retryable).
        """
        if refusal := refuse_input(image, self.sidecar.input):
            return self._other_region(image, refusal) or refusal
        tell = progress or _tell_nobody
        run = self.sidecar.exact if speed == "exact" else self.sidecar.fast
        with self._one_at_a_time:
            try:
                if self.sidecar.postprocess == "bundle":
                    return self._read_own_way(image, others or {}, run, tell)
                if isinstance(image, Image2D):  # said for the type checker; refuse_input has refused it
                    return Refusal(RefusalCode.UNSUPPORTED_CLASS, "a projection image", "send a volume")
                return self._read(image, run, tell)
            except MemoryError as error:
                raise ResourceExhausted("memory ran out outside the network", "give the worker more memory") from error

    def _other_region(self, image: Volume | Image2D, refusal: Refusal) -> Refusal | None:
        """Whether a stack that is too short shows another region anyway: then nobody waits for a result."""
        if not isinstance(image, Volume) or refusal.code is not RefusalCode.TOO_FEW or self.sidecar.postprocess == "bundle":
            return None
        prepared = READINGS[self.sidecar.postprocess](Case(image, self.sidecar, self.identity.digest)).prepare()
        return prepared if isinstance(prepared, Refusal) and prepared.code is RefusalCode.NOT_THIS_REGION else None

    def _read(self, volume: Volume, run: RunRules, tell: Progress) -> Findings | Refusal:
        begin = time.perf_counter()
        tell("preprocess", 0.0)
        reading = READINGS[self.sidecar.postprocess](Case(volume, self.sidecar, self.identity.digest))
        given = reading.prepare()
        if isinstance(given, Refusal):
            return given
        prediction, timings_s = self._predict(given, run, begin, tell)
        begin = time.perf_counter()
        tell("postprocess", 0.8)
        conclusion = reading.conclude(prediction)
        if isinstance(conclusion, Refusal):
            return conclusion
        timings_s["postprocess"] = time.perf_counter() - begin
        tell("postprocess", 1.0)
        return self._findings(volume, conclusion, timings_s)

    def _read_own_way(
        self, image: Volume | Image2D, others: Mapping[str, Volume], run: RunRules, tell: Progress
    ) -> Findings | Refusal:
        from dicomnode.engines.own_reading import OwnReading

        tell("preprocess", 0.0)
        reading = OwnReading(self.sidecar, self._bundle, self.identity.digest)
        concluded = reading.read(image, others, run=run, tell=tell)
        return concluded if isinstance(concluded, Refusal) else self._findings(image, *concluded)

    def _predict(self, given: NetworkInput, run: RunRules, begin: float, tell: Progress) -> tuple[Prediction, dict[str, float]]:
        from dicomnode.engines.network_run import predict, preprocess

        prepared = preprocess(self._bundle, given, self.sidecar.bundle, run)
        bfloat16 = run.bfloat16 and self._bfloat16_pays(prepared.tensor.shape[1])
        preprocessed = time.perf_counter()
        tell("forward", 0.2)
        prediction = predict(self._bundle, prepared, self.sidecar.bundle, run, bfloat16=bfloat16)
        return prediction, {"preprocess": preprocessed - begin, "forward": time.perf_counter() - preprocessed}

    def _bfloat16_pays(self, channels: int) -> bool:
        from dicomnode.engines.devices import bfloat16_is_faster

        if self._bfloat16 is None:
            self._bfloat16 = bfloat16_is_faster(self._bundle.network, channels, self._bundle.device)
        return self._bfloat16

    def _findings(self, volume: Volume | Image2D, conclusion: Conclusion, timings_s: dict[str, float]) -> Findings:
        return Findings(
            model=self.identity,
            label_maps=conclusion.label_maps,
            lesions=conclusion.lesions,
            classifications=conclusion.classifications,
            heatmaps=conclusion.heatmaps,
            boxes=conclusion.boxes,
            warnings=(*volume.warnings, *input_warnings(volume, self.sidecar.input), *conclusion.warnings),
            lesions_sought=conclusion.lesions_sought,
            timings_s={name: round(seconds, 4) for name, seconds in timings_s.items()},
        )


def _tell_nobody(_what: str, _share: float) -> None:
    pass
