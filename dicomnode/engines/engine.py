"""Engines that are no MONAI bundle: each takes a whole image and says what it finds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.engines.pipeline import Pipeline
from dicomnode.engines.sidecar import RunRules, Sidecar
from dicomnode.engines.values import Conclusion, Progress

if TYPE_CHECKING:
    from dicomnode.engines.bundle import Bundle


class Engine(Protocol):
    """One model, warm."""

    device: Any

    def read(
        self, image: Volume | Image2D, others: Mapping[str, Volume], tell: Progress
    ) -> tuple[Conclusion, dict[str, float]] | Refusal:
        """What it finds on the grid of `image`, and the seconds of each step. Raises PipelineError, ResourceExhausted."""
        ...


def load_engine(folder: Path, sidecar: Sidecar, device: str) -> Engine:
    """The engine that `postprocess` names. Raises PipelineError."""
    if sidecar.postprocess == "classical":
        from dicomnode.engines.classical import ClassicalEngine

        return ClassicalEngine(folder, sidecar)
    from dicomnode.engines.devices import choose_device
    from dicomnode.engines.nnunet.running import NnunetEngine

    return NnunetEngine(folder, sidecar, choose_device(device))


class EnginePipeline(Pipeline):
    """A pipeline around such an engine. It knows one speed."""

    def __init__(self, sidecar: Sidecar, engine: Engine, identity: ModelIdentity) -> None:
        one_speed = sidecar.model_copy(update={"fast": sidecar.exact})
        super().__init__(one_speed, cast("Bundle", None), identity)  # what asks for a bundle is overridden below
        self._engine = engine

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda:N"."""
        return str(self._engine.device)

    def _once(self, image: Volume | Image2D, others: Mapping[str, Volume], run: RunRules, tell: Progress) -> Findings | Refusal:  # noqa: ARG002
        tell("preprocess", 0.0)
        found = self._engine.read(image, others, tell)
        if isinstance(found, Refusal):
            return found
        tell("postprocess", 1.0)
        return self._findings(image, *found, {})
