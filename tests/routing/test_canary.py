"""The node's own phantom: which route it takes, what becomes of it, and when its absence is an alarm."""

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicomnode.domain.canary import CANARY, CANARY_AE_TITLE
from dicomnode.domain.results import ResultObject
from dicomnode.domain.routes import Route
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from dicomnode.registry.canary import ANSWERED, SENT
from dicomnode.roles.canary import Canary, route, study_uid
from dicomnode.routing import PipelineFacts, sweep
from dicomnode.settings import Node, Settings
from tests.registry.samples import Clock, Spool, received

ANY = Route("any", {"Modality": ("CT",)}, "chest_ct", "exact", "best", ("pacs",), ("SEG",), 10.0, 600.0)
PIPELINES = {"chest_ct": PipelineFacts("chest_ct", min_slices=1)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "run").mkdir(parents=True)
    return Settings(node=Node(data_dir=tmp_path / "data"), canary={"every_h": 1}, dicom={"port": 1})  # type: ignore[arg-type]


def arrives(registry: Registry, clock: Clock, study: str, calling_ae: str) -> None:
    one = replace(received(f"{study}.1.1", study=study, series=f"{study}.1", at=clock.now), calling_ae=calling_ae)
    registry.add_instance(one, ours=False)


def answered(registry: Registry, settings: Settings, study: str) -> ResultObject:
    job = registry.claim_job("w", 60)
    assert job is not None
    (one,) = Spool(study).objects(job, ("SR",))
    registry.finish_job(job, JobEvent.FINISHED, results=(one,), destinations=[CANARY])
    delivery = registry.claim_delivery("d", CANARY, 60)
    assert delivery is not None
    registry.finish_delivery(delivery, DeliveryEvent.ACCEPTED, status=0)
    return one


def test_a_canary_takes_its_own_route_and_nobody_else_takes_that(registry: Registry, clock: Clock, settings: Settings) -> None:
    arrives(registry, clock, "1.2.3", CANARY_AE_TITLE)
    arrives(registry, clock, "1.2.4", "CT_SCANNER")
    clock.forward(20)
    sweep(registry, (ANY, route(settings)), clock.now, pipelines=PIPELINES)
    routes = {str(study["key"]): registry.explain(str(study["key"]))["series"] for study in registry.studies()}
    taken = {key: [job["route"] for one in series for job in one["jobs"]] for key, series in routes.items()}  # type: ignore[attr-defined]
    assert taken == {"S1": [CANARY], "S2": ["any"]}
    assert "canary" not in str(registry.explain("S2")["paragraph"])


def test_a_canary_that_does_not_come_out_is_an_alarm_and_is_sent_again(
    registry: Registry, clock: Clock, settings: Settings
) -> None:
    one = Canary(settings, registry)
    with capture_logs() as logs:
        one.tick(clock.now)  # nobody listens on that port
    assert [line["event"] for line in logs] == ["the canary could not be sent"]
    with capture_logs() as logs:
        one.tick(clock.forward(29 * 60))
    assert logs == []
    with capture_logs() as logs:
        one.tick(clock.forward(2 * 60))
    assert [line["event"] for line in logs] == ["the canary did not come out in time"]
    with capture_logs() as logs:
        one.tick(clock.forward(30 * 60))
    assert [line["event"] for line in logs] == ["the canary did not come out in time", "the canary could not be sent"]
    assert registry.keeping.canary_marks() == (clock.now, None)


def test_only_whole_results_in_the_folder_count_and_earlier_ones_are_tidied_away(
    registry: Registry, clock: Clock, settings: Settings
) -> None:
    sent_at = clock.now
    registry.keeping.remember_canary(SENT, sent_at)
    study = study_uid(sent_at)
    arrives(registry, clock, study, CANARY_AE_TITLE)
    clock.forward(20)
    sweep(registry, (route(settings),), clock.now, pipelines=PIPELINES)
    result = answered(registry, settings, study)
    one = Canary(settings, registry)
    one.tick(clock.now)
    assert registry.keeping.canary_marks() == (sent_at, None)  # the rows say so, the folder does not
    folder = settings.data_dir / CANARY / result.study_instance_uid / result.series_instance_uid
    folder.mkdir(parents=True)
    (folder / f"{result.sop_instance_uid}.dcm").write_bytes(result.sop_instance_uid.encode())  # as `Spool` has its digest
    one.tick(clock.now)
    assert registry.keeping.canary_marks() == (sent_at, clock.now)
    registry.keeping.remember_canary(ANSWERED, clock.now)
    one.tick(clock.forward(3600))
    assert not list((settings.data_dir / CANARY).rglob("*.dcm"))
    assert registry.explain("S1")["purged_at"] is not None
