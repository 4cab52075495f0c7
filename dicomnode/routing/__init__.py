"""When is a study complete, which route takes it, which of its series is the best?

Enters: routes (settings), pipelines' needs, the registry's evidence (what came, what was announced), the time.
Leaves: completed series, one job per study and pipeline, and for each series what each route says of it and why.
Promises: the core is pure; a judgement made while something arrived is not written; a study without a route is explained too.
"""

from dicomnode.routing.choice import Choice, Loser, choose_series, refusal
from dicomnode.routing.completeness import Arrivals, Completeness, gather, is_complete
from dicomnode.routing.counting import type_count
from dicomnode.routing.facts import PipelineFacts, SweepReport
from dicomnode.routing.inputs import choose_inputs
from dicomnode.routing.judgement import judge
from dicomnode.routing.sweep import sweep
from dicomnode.routing.watch import JUMP_S, Watch

__all__ = [
    "JUMP_S",
    "Arrivals",
    "Choice",
    "Completeness",
    "Loser",
    "PipelineFacts",
    "SweepReport",
    "Watch",
    "choose_inputs",
    "choose_series",
    "gather",
    "is_complete",
    "judge",
    "refusal",
    "sweep",
    "type_count",
]
