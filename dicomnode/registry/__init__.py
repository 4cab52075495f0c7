"""Rows: what was received, what is complete, what is queued, what was sent, and the audit of every change of state.

Enters: `Received`, routing's judgements, workers' and deliverers' outcomes, an operator's hand. Leaves: claimed jobs and
deliveries, evidence for routing, the answers of `status`, `studies` and `explain`.
Promises: each method is one short transaction, committed on return; a state changes only by the tables of `domain.states`,
fenced, with an audit row; a late worker changes nothing (StaleUpdate). Knows nothing of bytes or network.
"""

from dicomnode.registry.holdings import HeldObject, Holdings, Narrowing
from dicomnode.registry.promises import Promises
from dicomnode.registry.proofs import Proofs
from dicomnode.registry.records import (
    MAX_JOB_ATTEMPTS,
    MAX_JOB_CRASHES,
    MAX_JOB_STARTS,
    OUT_OF_SPACE,
    Announced,
    AnnouncedSeries,
    AskedCommitment,
    AssociationEvidence,
    ClaimedDelivery,
    ClaimedJob,
    ConflictKind,
    InstanceKeys,
    JobInput,
    JobSummary,
    KnownInstance,
    PlannedJob,
    SeriesCompletion,
    SeriesEvidence,
    SeriesVerdict,
    StoredFile,
    StudyEvidence,
    StudyJudgement,
    Transition,
)
from dicomnode.registry.registry import Registry

__all__ = [
    "MAX_JOB_ATTEMPTS",
    "MAX_JOB_CRASHES",
    "MAX_JOB_STARTS",
    "OUT_OF_SPACE",
    "Announced",
    "AnnouncedSeries",
    "AskedCommitment",
    "AssociationEvidence",
    "ClaimedDelivery",
    "ClaimedJob",
    "ConflictKind",
    "HeldObject",
    "Holdings",
    "InstanceKeys",
    "JobInput",
    "JobSummary",
    "KnownInstance",
    "Narrowing",
    "PlannedJob",
    "Promises",
    "Proofs",
    "Registry",
    "SeriesCompletion",
    "SeriesEvidence",
    "SeriesVerdict",
    "StoredFile",
    "StudyEvidence",
    "StudyJudgement",
    "Transition",
]
