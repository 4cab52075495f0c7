"""A loaded pipeline: one image in, Findings or a Refusal out. Torch is loaded only by `load_pipeline`."""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines.admission import input_warnings, outside_the_card, refuse_input
from dicomnode.engines.catalogue import describe
from dicomnode.engines.chest.reading import ChestReading
from dicomnode.engines.segments import SegmentsReading
from dicomnode.engines.selftest import Proof, Proofs, compared
from dicomnode.engines.sidecar import RunRules, Sidecar, read_sidecar
from dicomnode.engines.values import Case, Conclusion, NetworkInput, Prediction, Progress, Reading

if TYPE_CHECKING:
    from dicomnode.engines.bundle import Bundle
    from dicomnode.engines.ladder import Descent

Speed = Literal["exact", "fast"]

_log = logging.getLogger(__name__)

# What a prediction is made into, by `postprocess` in pipeline.toml. A new kind is one file and one line here.
READINGS: Mapping[str, Callable[[Case], Reading]] = {"chest": ChestReading, "segments": SegmentsReading}
ENGINES = frozenset({"nnunet", "classical"})  # what is no MONAI bundle; see `engine`


def load_pipeline(
    folder: Path,
    *,
    device: str = "auto",
    trusted_digests: frozenset[str] = frozenset(),
    proofs: Path | None = None,
    folders: Sequence[Path] = (),
) -> "Pipeline":
    """Checks and loads the pipeline in `folder` onto "auto", "cpu", "cuda" or "cuda:N"; seconds, mostly for importing torch.

    Code of the bundle runs only if its digest is in `trusted_digests`. `proofs` is a folder that remembers whether the fast
    way passed its self-test on this machine. The pipelines of its chain are sought in `folders` and beside it.
    Raises PipelineError.
    """
    from dicomnode.engines.chain import chained

    def load(one: Path) -> "Pipeline":
        return _load(one, device, trusted_digests, proofs)

    return chained(load(folder), folder, folders, load)


def _load(folder: Path, device: str, trusted_digests: frozenset[str], proofs: Path | None) -> "Pipeline":
    sidecar = read_sidecar(folder)
    identity = describe(folder).identity
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI and torch warn of their own deprecations at import and in constructors
        if sidecar.postprocess in ENGINES:
            from dicomnode.engines.engine import EnginePipeline, load_engine

            return EnginePipeline(sidecar, load_engine(folder, sidecar, device), identity)
        from dicomnode.engines.bundle import load_bundle
        from dicomnode.engines.devices import choose_device, machine_name

        bundle = load_bundle(folder, sidecar, choose_device(device), trusted=identity.digest in trusted_digests)
    return Pipeline(sidecar, bundle, identity, Proofs(proofs, identity.digest, machine_name(bundle.device)))


class Pipeline:
    """One model, warm. One image gives the same Findings each time; at speed "fast" a timing chooses the precision."""

    def __init__(self, sidecar: Sidecar, bundle: "Bundle", identity: ModelIdentity, proofs: Proofs | None = None) -> None:
        self.identity = identity
        self.sidecar = sidecar
        self._bundle = bundle
        self._one_at_a_time = threading.Lock()  # the inferer and cuDNN's settings are shared
        self._bfloat16: bool | None = None
        self._proofs = proofs or Proofs(None, identity.digest, "")
        self._proof = self._proofs.read()

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda:N"."""
        return str(self._bundle.device)

    @property
    def network_bundle(self) -> "Bundle":
        """The MONAI bundle that it drives. Raises PipelineError where it drives none."""
        bundle: Bundle | None = getattr(self, "_bundle", None)
        if bundle is None:
            raise PipelineError(f"{self.sidecar.name} is no MONAI bundle", "name a pipeline with a network")
        return bundle

    def warm_up(self, speed: Speed) -> None:
        """What the first image at this speed would otherwise pay for: kernels, and at "fast" the choice of a precision."""
        if self.sidecar.postprocess == "chest":
            import skimage.segmentation  # noqa: F401 - a second or more, which lungs that touch would otherwise wait for
        if speed == "fast" and self.sidecar.fast.bfloat16:
            with self._one_at_a_time:
                self._bfloat16_pays()

    def run(
        self,
        image: Volume | Image2D,
        *,
        speed: Speed = "exact",
        progress: Progress | None = None,
        others: Mapping[str, Volume] | None = None,
    ) -> Findings | Refusal:
        """Findings on the image's own grid, or why there are none.

        speed: the first image at "fast" is computed both ways; from then on fast is used only if the two agreed.
        others: further series of the study by the names of `bundle.series`, for a model that reads several together.
        Timings "preprocess", "forward", "postprocess" in seconds. Raises PipelineError, ResourceExhausted (retryable).
        """
        if refusal := refuse_input(image, self.sidecar.input):
            return self._other_region(image, refusal) or refusal
        tell, others = progress or _tell_nobody, others or {}
        with self._one_at_a_time:
            try:
                if speed == "exact" or self._fast_is_exact():
                    return self._once(image, others, self.sidecar.exact, tell)
                if self._proof is None:
                    return self._proving(image, others, tell)
                found = self._once(image, others, self.sidecar.fast if self._proof.passed else self.sidecar.exact, tell)
                return _as_told(found, self._proof)
            except MemoryError as error:
                raise ResourceExhausted("memory ran out outside the network", "give the worker more memory") from error

    def _fast_is_exact(self) -> bool:
        """Whether the two ways do not differ here: there is nothing to prove then."""
        exact, fast = self.sidecar.exact, self.sidecar.fast
        return exact == fast or (exact == fast.model_copy(update={"bfloat16": exact.bfloat16}) and not self._bfloat16_pays())

    def _proving(self, image: Volume | Image2D, others: Mapping[str, Volume], tell: Progress) -> Findings | Refusal:
        """The fast findings if they agree with the exact ones, which are made for this alone; else the exact ones."""
        began = time.perf_counter()
        exact = self._once(image, others, self.sidecar.exact, tell)
        took_s = round(time.perf_counter() - began, 4)
        if isinstance(exact, Refusal):
            return exact
        try:
            fast = self._once(image, others, self.sidecar.fast, _tell_nobody)
        except PipelineError as error:
            _log.warning("the fast way of a model could not be tried", exc_info=error)
            return exact
        proof = Proof(False, "it refuses what exact does not") if isinstance(fast, Refusal) else compared(exact, fast)
        if not proof.passed:
            _log.warning("a model failed its self-test: it runs at speed exact wherever fast is asked for")
        self._proof = proof
        self._proofs.write(proof)
        if not proof.passed or isinstance(fast, Refusal):
            return _as_told(exact, proof)
        return _as_told(replace(fast, timings_s={**fast.timings_s, "self_test": took_s}), proof)

    def _once(self, image: Volume | Image2D, others: Mapping[str, Volume], run: RunRules, tell: Progress) -> Findings | Refusal:
        if self.sidecar.postprocess == "bundle":
            return self._read_own_way(image, others, run, tell)
        if isinstance(image, Image2D):  # said for the type checker; refuse_input has refused it
            return Refusal(RefusalCode.UNSUPPORTED_CLASS, "a projection image", "send a volume")
        return self._read(image, run, tell)

    def _other_region(self, image: Volume | Image2D, refusal: Refusal) -> Refusal | None:
        """Whether a stack that is too short shows another region anyway: then nobody waits for a result."""
        if not isinstance(image, Volume) or refusal.code is not RefusalCode.TOO_FEW or self.sidecar.postprocess not in READINGS:
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
        prediction, timings_s, way = self._predict(given, run, begin, tell)
        begin = time.perf_counter()
        tell("postprocess", 0.8)
        conclusion = reading.conclude(prediction)
        if isinstance(conclusion, Refusal):
            return conclusion
        timings_s["postprocess"] = time.perf_counter() - begin
        tell("postprocess", 1.0)
        return self._findings(volume, conclusion, timings_s, way)

    def _read_own_way(
        self, image: Volume | Image2D, others: Mapping[str, Volume], run: RunRules, tell: Progress
    ) -> Findings | Refusal:
        from dicomnode.engines.own_reading import OwnReading

        tell("preprocess", 0.0)
        run = run.model_copy(update={"bfloat16": run.bfloat16 and self._bfloat16_pays()})
        reading = OwnReading(self.sidecar, self._bundle, self.identity.digest)
        concluded = reading.read(image, others, run=run, tell=tell)
        if isinstance(concluded, Refusal):
            return concluded
        conclusion, timings_s, descent = concluded
        return self._findings(image, conclusion, timings_s, _way(descent, bfloat16=run.bfloat16))

    def _predict(
        self, given: NetworkInput, run: RunRules, begin: float, tell: Progress
    ) -> tuple[Prediction, dict[str, float], dict[str, str]]:
        from dicomnode.engines.network_run import predict, preprocess

        bfloat16 = run.bfloat16 and self._bfloat16_pays()
        prepared = preprocess(self._bundle, given, self.sidecar.bundle, run)
        preprocessed = time.perf_counter()
        tell("forward", 0.2)
        prediction, descent = predict(self._bundle, prepared, self.sidecar.bundle, run, bfloat16=bfloat16)
        timings_s = {"preprocess": preprocessed - begin, "forward": time.perf_counter() - preprocessed}
        return prediction, timings_s, _way(descent, bfloat16=bfloat16)

    def _bfloat16_pays(self) -> bool:
        from dicomnode.engines.devices import bfloat16_is_faster

        if self._bfloat16 is None:
            self._bfloat16 = bfloat16_is_faster(self._bundle.network, self._bundle.device)
        return self._bfloat16

    def _findings(
        self, volume: Volume | Image2D, conclusion: Conclusion, timings_s: dict[str, float], way: dict[str, str]
    ) -> Findings:
        return Findings(
            model=self.identity,
            label_maps=conclusion.label_maps,
            lesions=conclusion.lesions,
            classifications=conclusion.classifications,
            heatmaps=conclusion.heatmaps,
            boxes=conclusion.boxes,
            warnings=(
                *volume.warnings,
                *input_warnings(volume, self.sidecar.input),
                *outside_the_card(volume.headers, self.sidecar.trained_on),
                *conclusion.warnings,
            ),
            lesions_sought=conclusion.lesions_sought,
            timings_s={name: round(seconds, 4) for name, seconds in timings_s.items()},
            run=way,
        )


def _way(descent: "Descent", *, bfloat16: bool) -> dict[str, str]:
    """What the record says of a run of the network."""
    low = bfloat16 and not any(descent.device.type == "cpu" and "cuda" in one for one in descent.fell)
    way = {"precision": "bfloat16" if low else "float32", "way": descent.way}
    if descent.fell:
        way["fell back"] = f"memory ran out with {'; with '.join(descent.fell)}"
    return way


def _as_told(found: Findings | Refusal, proof: Proof) -> Findings | Refusal:
    """Findings for which "fast" was asked say at which speed they were made, and why."""
    if isinstance(found, Refusal):
        return found
    speed = "fast" if proof.passed else "exact"
    verdict = "passed" if proof.passed else "failed"
    return replace(found, run={**found.run, "speed": speed, "self-test": f"{verdict}: {proof.words}"})


def _tell_nobody(_what: str, _share: float) -> None:
    pass
