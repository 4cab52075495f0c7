"""What a node asks its rows for all day long."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from dicomnode.domain.routes import Route
from dicomnode.registry import Registry
from dicomnode.roles.retention import Retention
from dicomnode.routing import PipelineFacts, sweep
from dicomnode.settings import Settings
from dicomnode.storage import Store

ROUTE = Route("chest-ct", {"Modality": ("CT",)}, "chest_ct", "exact", "best", ("pacs",), ("SEG", "SR", "SC"), 10.0, 600.0)


def looks(registry: Registry, folder: Path, now: datetime) -> Mapping[str, Callable[[], object]]:
    """By name, each as a role or a command does it. `folder`: of a store. Nothing is old enough to be purged."""
    store = Store(folder, reserve_bytes=0)
    store.prepare()
    lasting = Settings(retention={"sources_days": 365, "audit_days": 3650})  # type: ignore[arg-type]
    retention = Retention(registry, store, lasting, free_share=lambda _: 1.0)
    facts = {ROUTE.pipeline: PipelineFacts(ROUTE.pipeline)}
    return {
        "status": registry.status_counts,
        "alarms": lambda: registry.alarms.standing(queue_longer_than=timedelta(hours=1), failed_within=timedelta(days=7)),
        "studies": registry.studies,
        "explain": lambda: registry.explain("S5000"),
        "completeness": lambda: sweep(registry, (ROUTE,), now, pipelines=facts),
        "leases": registry.requeue_lost,
        "claim a job": lambda: registry.claim_job("w", 60),
        "claim a delivery": lambda: registry.claim_delivery("d", "pacs", 60),
        "proofs": lambda: registry.deliveries_to_prove("pacs"),
        "files to remove": lambda: registry.keeping.files_to_remove(2000),
        "retention": lambda: retention.sweep(now),
    }
