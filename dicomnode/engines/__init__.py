"""Image in, Findings out, through MONAI bundles.

Enters: a pipeline folder (a MONAI bundle and its `pipeline.toml`) and a `Volume` or `Image2D`. Leaves: `Findings` on the source
grid, or a `Refusal`. Promises: no code of a bundle runs unless its digest is trusted; weights are read as data; the same input
and model give the same findings; what is not the model's region or looks like no real image is refused by name. Importing this
package, `find_pipelines` and `check_pipeline` load no torch: only `load_pipeline` does.
"""

from typing import TYPE_CHECKING, Any

from dicomnode.engines.catalogue import PipelineInfo, find_pipelines
from dicomnode.engines.checking import check_pipeline
from dicomnode.engines.findings import CheckFinding

if TYPE_CHECKING:
    from dicomnode.engines.pipeline import Pipeline, load_pipeline


def __getattr__(name: str) -> Any:
    """`Pipeline` and `load_pipeline` bring imaging and SciPy: who only asks for names need not wait for them."""
    if name not in {"Pipeline", "load_pipeline"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dicomnode.engines import pipeline

    return getattr(pipeline, name)


__all__ = ["CheckFinding", "Pipeline", "PipelineInfo", "check_pipeline", "find_pipelines", "load_pipeline"]
