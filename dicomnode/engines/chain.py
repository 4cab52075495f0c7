"""Pipelines that run together: what must be true of an image before one of them runs, and what else reads the same image.

series understanding → distribution gate → the model itself → further models: each step is a pipeline of its own, with its own
digest; the one that names the others answers for the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Classification, Findings
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines.admission import refuse_input
from dicomnode.engines.classical import UNCERTAIN
from dicomnode.engines.distribution import Distribution
from dicomnode.engines.pipeline import Pipeline, Speed
from dicomnode.engines.rules import ChainStep
from dicomnode.engines.sidecar import SIDECAR_NAME
from dicomnode.engines.values import Progress

type_load = Callable[[Path], Pipeline]


@dataclass(frozen=True, slots=True)
class Step:
    """One other pipeline, loaded, and what is wanted of it."""

    rules: ChainStep
    pipeline: Pipeline


class ChainedPipeline(Pipeline):
    """A pipeline behind its gates and before those that read the same image."""

    def __init__(self, own: Pipeline, steps: Sequence[Step], distribution: Distribution | None) -> None:
        self.sidecar = own.sidecar
        self._own, self._steps, self._distribution = own, tuple(steps), distribution
        # What a demonstration model says in a result makes the result a demonstration.
        speaking = [own, *(step.pipeline for step in steps if step.rules.report)]
        self.identity = replace(own.identity, demonstration=any(one.identity.demonstration for one in speaking))

    @property
    def device(self) -> str:
        """Where the model itself computes."""
        return self._own.device

    def warm_up(self, speed: Speed) -> None:
        """As the model itself does."""
        self._own.warm_up(speed)

    def run(
        self,
        image: Volume | Image2D,
        *,
        speed: Speed = "exact",
        progress: Progress | None = None,
        others: Mapping[str, Volume] | None = None,
    ) -> Findings | Refusal:
        """As `Pipeline.run`; a step that gates may refuse before the model is asked."""
        if refusal := refuse_input(image, self.sidecar.input):
            return refusal
        said: list[tuple[Step, Findings]] = []
        warnings: list[str] = []
        for step in self._steps:
            if step.rules.when == "before":
                found = step.pipeline.run(image, speed=speed)
                if isinstance(found, Refusal):
                    return found
                said.append((step, found))
                verdict = _gate(step, found)
                if isinstance(verdict, Refusal):
                    return verdict
                warnings += verdict
        unfamiliar = self._distribution.judge(self._distribution.row(image)) if self._distribution is not None else None
        if isinstance(unfamiliar, Refusal):
            return unfamiliar
        warnings += [unfamiliar] if unfamiliar else []
        own = self._own.run(image, speed=speed, progress=progress, others=others)
        if isinstance(own, Refusal):
            return own
        for step in self._steps:
            if step.rules.when == "after":
                found = step.pipeline.run(image, speed=speed)
                if isinstance(found, Refusal):
                    warnings.append(f"{step.pipeline.identity.name} did not run: {found.message}")
                else:
                    said.append((step, found))
        return _joined(replace(own, model=self.identity), said, warnings)


def chained(own: Pipeline, folder: Path, folders: Sequence[Path], load: type_load) -> Pipeline:
    """`own`, with the steps that its `pipeline.toml` names. Raises PipelineError where one cannot be found or loaded."""
    sidecar = own.sidecar
    if not sidecar.chain and (sidecar.distribution is None or sidecar.postprocess == "classical"):
        return own
    steps = [Step(rules, load(_folder_of(rules.pipeline, (*folders, folder.parent)))) for rules in sidecar.chain]
    if nested := [step.pipeline.identity.name for step in steps if step.pipeline.sidecar.chain]:
        raise PipelineError(f"{nested[0]} has a chain of its own", "name its steps in this pipeline's chain instead")
    if sidecar.distribution is None or sidecar.postprocess == "classical":
        return ChainedPipeline(own, steps, None)
    bundle = own.network_bundle if sidecar.distribution.features == "network" else None
    return ChainedPipeline(own, steps, Distribution(folder, sidecar, bundle))


def _folder_of(name: str, folders: Sequence[Path]) -> Path:
    from dicomnode.engines.catalogue import find_pipelines

    for info in find_pipelines(list(folders)):
        if info.name == name:
            return info.folder
    raise PipelineError(f"the chain names pipeline {name!r}, which does not exist", f"add it, or correct {SIDECAR_NAME}")


def _gate(step: Step, found: Findings) -> Refusal | list[str]:
    """A refusal for what the image shows, or what the reader must know of it."""
    warnings = []
    statements = {one.name: one for one in found.classifications}
    for name, allowed in step.rules.require.items():
        if name not in statements:
            raise PipelineError(f"{step.pipeline.identity.name} says nothing of {name!r}", "correct require in [[chain]]")
        one = statements[name]
        if one.value in allowed:
            continue
        if one.value == UNCERTAIN or one.probability < step.rules.min_probability:
            warnings.append(f"{name}: not certain from the pixels ({_words(one)})")
            continue
        by = f"{step.pipeline.identity.name} {step.pipeline.identity.version}"
        message = f"the pixels show another {name} than the model's: {_words(one)} by {by}, {' or '.join(allowed)} expected"
        if step.rules.otherwise == "refuse":
            return Refusal(RefusalCode.NOT_THIS_REGION, message, "correct the route that chose this series")
        warnings.append(message)
    return warnings


def _words(one: Classification) -> str:
    return f"{one.value} (probability {one.probability:.2f})"


def _joined(own: Findings, said: Sequence[tuple[Step, Findings]], warnings: Sequence[str]) -> Findings:
    """One set of findings: the model's own first."""
    run, timings_s = dict(own.run), dict(own.timings_s)
    for step, found in said:
        name = step.pipeline.identity.name
        version = step.pipeline.identity.version
        spoken = "; ".join(f"{one.name}: {_words(one)}" for one in found.classifications)
        run[name] = f"{version}{', ' if spoken else ''}{spoken}"
        timings_s["preprocess"] = round(timings_s.get("preprocess", 0.0) + sum(found.timings_s.values()), 4)
    reported = [(step.pipeline.identity.name, found) for step, found in said if step.rules.report]
    taken = {one.name for one in own.label_maps}
    maps = list(own.label_maps)
    for name, found in reported:
        maps += [replace(one, name=f"{name} {one.name}") if one.name in taken else one for one in found.label_maps]
        taken |= {one.name for one in maps}
    of_steps = [found for _, found in reported]
    return replace(
        own,
        label_maps=tuple(maps),
        lesions=(*own.lesions, *(one for found in of_steps for one in found.lesions)),
        classifications=(*own.classifications, *(one for found in of_steps for one in found.classifications)),
        heatmaps=(*own.heatmaps, *(one for found in of_steps for one in found.heatmaps)),
        boxes=(*own.boxes, *(one for found in of_steps for one in found.boxes)),
        lesions_sought=own.lesions_sought or any(found.lesions_sought for found in of_steps),
        warnings=tuple(dict.fromkeys((*own.warnings, *warnings, *(one for found in of_steps for one in found.warnings)))),
        run=run,
        timings_s=timings_s,
    )
