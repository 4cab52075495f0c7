"""`explain` as people and as programs get it, and the operator's three words, as commands."""

from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from dicomnode.settings import load_settings
from tests.cli.conftest import type_command
from tests.registry.samples import Spool, add_series, queue_job

# DESIGN 8, "--json holds at least"
SERIES = {"series_instance_uid", "state", "evidence", "routes", "jobs", "results", "deliveries"}
JOB = {"id", "pipeline", "version", "state", "reason", "timings_s"}
RESULT = {"kind", "sop_instance_uid", "series_instance_uid"}
DELIVERY = {"id", "destination", "sop_instance_uid", "state", "attempts", "last_error", "proof"}


@pytest.fixture
def config(command: type_command, tmp_path: Path) -> Path:
    """A node with one study whose SEG was accepted, whose SR was refused for good and whose SC waits."""
    assert command("init", str(tmp_path / "node")).code == 0
    path = tmp_path / "node" / "dicomnode.toml"
    registry = Registry(load_settings(path).database_url)
    add_series(registry, 3)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job), destinations=["pacs"], timings_s={"forward": 1.5})
    for event, status in ((DeliveryEvent.ACCEPTED, 0), (DeliveryEvent.REJECTED, 0xA900)):
        delivery = registry.claim_delivery("d", "pacs", 60)
        assert delivery is not None
        registry.finish_delivery(delivery, event, status=status, error="" if status == 0 else "A900")
    registry.close()
    return path


def explained(command: type_command, config: Path, study: str) -> dict[str, Any]:
    answer = command("explain", study, "--config", str(config), "--json")
    assert answer.code == 0
    return answer.document


def test_a_study_is_explained_by_uid_key_or_accession_number_in_one_paragraph_and_in_full(
    command: type_command, config: Path
) -> None:
    document = explained(command, config, "1.2.3")
    assert document == explained(command, config, "S1") == explained(command, config, "ACC1")
    assert document["schema"] == "dicomnode.explain/1"
    paragraph = document["paragraph"]
    assert "\n" not in paragraph
    assert paragraph.endswith(".")
    shown = command("explain", "S1", "--config", str(config)).out
    assert " ".join(shown.split()).startswith(" ".join(paragraph.split())), "people read the same words first"
    (series,) = document["series"]
    assert series.keys() >= SERIES
    assert series["evidence"]["instances"] == 3
    (job,) = series["jobs"]
    assert job.keys() >= JOB
    assert job["timings_s"] == {"forward": 1.5}
    assert [one["kind"] for one in series["results"]] == ["SEG", "SR", "SC"]
    assert all(one.keys() >= RESULT for one in series["results"])
    assert all(one.keys() >= DELIVERY for one in series["deliveries"])
    assert [one["state"] for one in series["deliveries"]] == ["sent", "rejected", "waiting"]
    for one in (*(entry["id"] for entry in series["deliveries"][1:2]), "A900"):
        assert one in shown


def test_retry_cancel_and_reprocess_say_what_they_changed_and_change_it(command: type_command, config: Path) -> None:
    def changed(*words: str) -> list[str]:
        answer = command(*words, "--config", str(config), "--json")
        assert answer.code == 0, answer.out
        found: list[str] = answer.document["changed"]
        return found

    def states() -> list[str]:
        return [one["state"] for series in explained(command, config, "S1")["series"] for one in series["deliveries"]]

    assert changed("retry", "D2") == ["D2"]
    assert states() == ["sent", "waiting", "waiting"]
    assert changed("cancel", "D3") == ["D3"]
    assert states() == ["sent", "waiting", "cancelled"]
    assert changed("reprocess", "J1") == ["J2"]
    (series,) = explained(command, config, "S1")["series"]
    assert [(one["id"], one["version"], one["state"]) for one in series["jobs"]] == [
        ("J1", 1, "superseded"),
        ("J2", 2, "queued"),
    ]
    assert states() == ["sent", "cancelled", "cancelled"], "nothing of the old version leaves any more"
    assert changed("cancel", "J2") == ["J2"]
    assert changed("retry", "J2") == ["J2"]
