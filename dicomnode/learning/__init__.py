"""Training and judging the node's own model.

Enters: a bundle, a seed, and (if there are any) real series whose licence allows it. Leaves: new weights with a report, and
figures measured through the shipped path (imaging loads, engines runs), written into the bundle's metadata and card.
Promises: the same seed, plan and data give the same weights; a real series' figures come from a model that never saw it.
"""

from dicomnode.learning.evaluation import evaluate
from dicomnode.learning.publishing import publish
from dicomnode.learning.training import Plan, TrainingReport, train

__all__ = ["Plan", "TrainingReport", "evaluate", "publish", "train"]
