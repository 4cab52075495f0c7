"""Results to a PACS by TLS: both sides show certificates; who is not who he says gets nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode import network
from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.results import ResultKind
from dicomnode.domain.routes import Destination, PeerTls
from tests.delivery.outbox import Outbox, dicom_destination
from tests.peers.orthanc import Orthanc
from tests.receiving.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Pair:
    return authority.sign("node")


def tls_pacs(orthanc: Callable[..., Orthanc], authority: Authority, pair: Pair) -> Orthanc:
    return orthanc(
        "pacs",
        ae_title="PACS",
        settings={
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(pair.certificate),
            "DicomTlsPrivateKey": str(pair.key),
            "DicomTlsTrustedCertificates": str(authority.certificate),
        },
    )


def by_tls(destination: Destination, tls: PeerTls) -> Destination:
    assert destination.peer is not None
    return replace(destination, peer=replace(destination.peer, tls=tls))


def test_results_travel_encrypted_to_the_pacs_that_the_certificate_names(
    outbox: Outbox, orthanc: Callable[..., Orthanc], authority: Authority, node: Pair
) -> None:
    pacs = tls_pacs(orthanc, authority, authority.sign("pacs", address="127.0.0.1"))
    results = outbox.finish_a_job("pacs")
    destination = dicom_destination("pacs", "PACS", pacs.dicom_port, proof="find")
    deliverer = outbox.deliverer(by_tls(destination, PeerTls(node.certificate, node.key, authority.certificate)))
    assert deliverer.run_once() == 3
    outbox.clock.advance(seconds=2)
    deliverer.prove_once()
    assert outbox.states() == ["confirmed"] * 3
    assert pacs.arrivals() == [one.sop_instance_uid for one in results]


def test_a_pacs_that_wants_tls_gets_nothing_in_the_clear_and_another_ones_certificate_nothing_at_all(
    outbox: Outbox, orthanc: Callable[..., Orthanc], authority: Authority, node: Pair, tmp_path: Path
) -> None:
    pacs = tls_pacs(orthanc, authority, authority.sign("elsewhere", address="192.0.2.7"))
    plain = dicom_destination("pacs", "PACS", pacs.dicom_port)
    stranger = Authority(tmp_path / "stranger").sign("node")
    outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    for destination in (
        plain,
        by_tls(plain, PeerTls(node.certificate, node.key, authority.certificate)),  # the name is another
        by_tls(plain, PeerTls(stranger.certificate, stranger.key, authority.certificate)),
    ):
        outbox.deliverer(destination).run_once()
        assert outbox.states() == ["waiting"]
    assert pacs.instance_count() == 0


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    destination = by_tls(dicom_destination("pacs", "PACS", 4242), PeerTls(tmp_path / "no.pem", tmp_path / "no.key"))
    assert destination.peer is not None
    with pytest.raises(PeerUnreachable, match=r"certificates .* No such file"):
        network.echo(destination.peer, "DICOMNODE")
