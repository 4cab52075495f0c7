"""Which bundles can never be run on a DICOM series, and why: those that make images, and those that read whole slides."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_GENERATIVE = re.compile(
    r"(\w*Diffusion\w*|AutoencoderKL\w*|SPADE\w*|VQVAE\w*|ControlNet\w*|\w*(DDPM|DDIM|PNDM|RFlow)Scheduler|\w*LDMSampler\w*)$"
)
_WHOLE_SLIDE = re.compile(r"(\w*WSI\w*|\w*HoVerNet\w*|HoverNet\w*|\w*HoVer\w*|ProbNMS\w*|PatchWSI\w*)$")


def refuse_kind(config: Mapping[str, Any]) -> str | None:
    """What a bundle of this configuration does instead of finding something in an image; None for one that can be tried."""
    names = [str(target).rpartition(".")[2] for target in _targets(config)]
    if found := [name for name in names if _WHOLE_SLIDE.match(name)]:
        return f"it reads whole-slide images or tiles of them ({found[0]}), which come as no series that this node reads"
    if found := [name for name in names if _GENERATIVE.match(name)]:
        return f"it is generative ({found[0]}): it makes images and finds nothing in one"
    if "preprocessing" not in config and ("sampler" in config or "noise" in config):
        return "it is generative: it starts from noise and finds nothing in an image"
    return None


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        for inner in value.values():
            yield from _targets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner)
    elif isinstance(value, str) and value.startswith("$"):
        yield from re.findall(r"\b[A-Za-z_][\w.]*(?=\()", value)
