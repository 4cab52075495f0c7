"""The node's own phantom: which route it takes, what becomes of it, and when its absence is an alarm."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicomnode.cli.check import _certificates
from dicomnode.domain.canary import CANARY, CANARY_AE_TITLE
from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.results import ResultObject
from dicomnode.domain.routes import Route
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.network import echo
from dicomnode.receiving import Receiver
from dicomnode.registry import Registry
from dicomnode.registry.canary import ANSWERED, SENT
from dicomnode.roles import wiring
from dicomnode.roles.canary import Canary, permitted, route, sender, study_uid
from dicomnode.routing import PipelineFacts, sweep
from dicomnode.settings import Node, Settings
from tests.peers.waiting import free_port
from tests.receiving.certificates import Authority, Pair
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


def test_a_clock_that_was_a_year_ahead_does_not_silence_the_canary(
    registry: Registry, clock: Clock, settings: Settings
) -> None:
    for name in (SENT, ANSWERED):
        registry.keeping.remember_canary(name, clock.now + timedelta(days=365))
    with capture_logs() as logs:
        Canary(settings, registry).tick(clock.now)
    assert [line["event"] for line in logs] == ["the canary could not be sent"]
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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def behind_tls(folder: Path, own: Pair, ca: Path | None, **canary: object) -> Settings:
    """A node whose port speaks TLS, asks for certificates where `ca` signs them, and knows one peer, far away."""
    (folder / "run").mkdir(parents=True)
    tls = {"certificate": own.certificate, "key": own.key, "ca": ca, "require_client": ca is not None}
    return Settings(
        node=Node(data_dir=folder),
        canary={"every_h": 1, **canary},  # type: ignore[arg-type]
        dicom={"port": free_port(), "tls": tls},  # type: ignore[arg-type]
        peers=[{"name": "ct", "ae_title": "CT", "host": "192.0.2.1", "port": 104, "may": ["store"]}],  # type: ignore[arg-type]
    )


@contextmanager
def listening(settings: Settings) -> Iterator[Registry]:
    """The listener as the receive role builds it."""
    registry, store = Registry(settings.database_url), wiring.open_store(settings)
    registry.prepare()
    store.prepare()
    peers = (*wiring.peers(settings).values(), *permitted(settings))
    receiver = Receiver(
        store, registry, ae_title="DICOMNODE", port=settings.dicom.port, peers=peers, tls=wiring.tls_context(settings)
    )
    receiver.start()
    try:
        yield registry
    finally:
        receiver.stop()
        registry.close()


def test_a_canary_goes_in_by_tls_with_a_certificate_where_the_listener_asks_for_one(
    tmp_path: Path, authority: Authority, clock: Clock
) -> None:
    settings = behind_tls(tmp_path / "data", authority.sign("node", address="192.0.2.7"), authority.certificate)
    with listening(settings) as registry, capture_logs() as logs:
        Canary(settings, registry).tick(clock.now)
        assert [line["event"] for line in logs if line["log_level"] == "error"] == []
        (study,) = registry.studies()
        assert (study["study_instance_uid"], study["patient_id"]) == (study_uid(clock.now), "CANARY")


def test_whoever_signed_and_wherever_it_is_called_the_canary_knows_its_listener(tmp_path: Path, authority: Authority) -> None:
    own, other = authority.sign("elsewhere", address="192.0.2.7"), Authority(tmp_path / "other", "other")
    device = other.sign("canary")
    without = behind_tls(tmp_path / "a", own, None)
    given = behind_tls(tmp_path / "b", own, other.certificate, certificate=device.certificate, key=device.key)
    for settings in (without, given):
        with listening(settings):
            assert echo(sender(settings), CANARY_AE_TITLE) > 0
        assert [one.ok for one in _certificates(settings)] == [True, True]
    stranger = behind_tls(tmp_path / "c", own, other.certificate)  # its own is not signed by those whom the listener believes
    with listening(stranger), pytest.raises(PeerUnreachable):
        echo(sender(stranger), CANARY_AE_TITLE)
    *_, check = _certificates(stranger)
    assert not check.ok
    assert "unable to get local issuer certificate" in check.detail
    assert "canary.certificate" in check.remedy


def test_somebody_elses_listener_on_that_port_gets_no_canary(tmp_path: Path, authority: Authority) -> None:
    ours = behind_tls(tmp_path / "ours", authority.sign("ours"), None)
    theirs = behind_tls(tmp_path / "theirs", authority.sign("theirs"), None)
    with listening(theirs), pytest.raises(PeerUnreachable):
        echo(replace(sender(ours), port=theirs.dicom.port), CANARY_AE_TITLE)
