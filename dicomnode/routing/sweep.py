"""The shell: evidence from the registry, judgement by the pure core, judgement back."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from dicomnode.domain.routes import Route
from dicomnode.registry import Registry
from dicomnode.routing.facts import PipelineFacts, SweepReport


def sweep(registry: Registry, routes: Sequence[Route], now: datetime, *, pipelines: Mapping[str, PipelineFacts]) -> SweepReport:
    """Judge every study in which something arrived: complete series, choose, create jobs, store why. Idempotent."""
    raise NotImplementedError
