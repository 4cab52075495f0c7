"""When is a study complete, which route takes it, which of its series is the best?

Enters: routes (settings), pipelines' needs, the registry's evidence, the time. Leaves: completed series, one job per study and
pipeline, and for each series what each route says of it and why.
Promises: the core is pure; a judgement made while something arrived is not written; a study without a route is explained too.
"""

from dicomnode.routing.facts import PipelineFacts, SweepReport
from dicomnode.routing.sweep import sweep

__all__ = ["PipelineFacts", "SweepReport", "sweep"]
