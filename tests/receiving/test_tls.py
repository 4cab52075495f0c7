"""TLS in front of the same promises: DCMTK over TLS, with and without certificates of its own, and whoever else comes by."""

import os
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dicomnode.domain.errors import SettingsError
from dicomnode.network.tls import TlsFiles, days_valid, server_context
from dicomnode.receiving import Limits
from tests.peers.dcmtk import echoscu, storescu
from tests.peers.node import Node, settings_text
from tests.peers.waiting import wait_until
from tests.receiving import raw
from tests.receiving.attacks import other_protocols
from tests.receiving.certificates import Authority, Pair, openssl
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.reception import Reception
from tests.receiving.samples import ct, encoded, saved

type_make = Callable[..., Reception]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    return authority.sign("node")


@pytest.fixture(scope="module")
def device(authority: Authority) -> Pair:
    return authority.sign("modality")


def files(own: Pair, authority: Authority, **changes: object) -> TlsFiles:
    return TlsFiles(**{"certificate": own.certificate, "key": own.key, "ca": authority.certificate, **changes})  # type: ignore[arg-type]


def over_tls(authority: Authority, device: Pair) -> list[str]:
    return ["+tls", str(device.key), str(device.certificate), "+cf", str(authority.certificate)]


def anonymously(authority: Authority) -> list[str]:
    return ["+tla", "+cf", str(authority.certificate)]


def client_context(authority: Authority, device: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.certificate)
    if device is not None:
        context.load_cert_chain(device.certificate, device.key)
    return context


def test_a_device_with_a_certificate_stores_over_tls_and_the_bytes_are_kept(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)))
    images = [ct(PixelData=bytes(512 * 512 * 2), Rows=512, Columns=512), ct()]
    paths = [saved(image, tmp_path) for image in images]
    result = storescu(reception.port, *paths, extra=["-xe", *over_tls(authority, device)])
    assert result.ok, result.output
    for image in images:
        assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


def test_without_a_certificate_nobody_gets_in_where_one_is_required(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)))
    stranger = Authority(tmp_path / "other", "other").sign("stranger")
    assert not echoscu(reception.port, extra=anonymously(authority)).ok
    assert not echoscu(reception.port, extra=over_tls(authority, stranger)).ok
    assert not echoscu(reception.port).ok
    assert echoscu(reception.port, extra=over_tls(authority, device)).ok


def test_where_none_is_required_a_device_without_a_certificate_stores(
    make_reception: type_make, authority: Authority, own: Pair, tmp_path: Path
) -> None:
    reception = make_reception(tls=server_context(files(own, authority, ca=None, require_client=False)))
    image = ct()
    assert storescu(reception.port, saved(image, tmp_path), extra=anonymously(authority)).ok
    assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "AES128-SHA"),
        (ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384"),
    ],
    ids=["TLS 1.1", "CBC without forward secrecy", "GCM without forward secrecy"],
)
def test_what_bcp_195_forbids_is_not_negotiated(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair, version: ssl.TLSVersion, ciphers: str
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)))
    context = client_context(authority, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    with (
        socket.create_connection(("127.0.0.1", reception.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_request_in_single_bytes_over_either_version_is_understood(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair, version: ssl.TLSVersion
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)))
    context = client_context(authority, device)
    context.minimum_version = context.maximum_version = version
    with raw.RawSender(reception.port) as sender:
        sender.socket = context.wrap_socket(sender.socket)
        for byte in raw.associate_rq():
            sender.send(bytes([byte]))
        assert sender.receive()[0] == ASSOCIATE_AC
        assert sender.release() == RELEASE_RP


def test_fifty_silent_tls_clients_stop_nobody_and_end_at_the_deadline(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair
) -> None:
    """Silent from the start, in the middle of the handshake, and after it: the deadline of the request counts for all."""
    reception = make_reception(tls=server_context(files(own, authority)), limits=Limits(association_deadline_s=3.0))
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", reception.port), timeout=20)) for _ in range(40)]
        for one in silent[20:]:
            one.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        context = client_context(authority, device)
        shaken = [
            context.wrap_socket(stack.enter_context(socket.create_connection(("127.0.0.1", reception.port), timeout=20)))
            for _ in range(10)
        ]
        began = time.monotonic()
        assert echoscu(reception.port, extra=over_tls(authority, device)).ok
        assert time.monotonic() - began < 5
        for one in (*silent, *shaken):
            with suppress(OSError):
                assert one.recv(100) == b""
        assert time.monotonic() - began < 12
        for one in shaken:
            one.close()


def test_plain_dicom_http_and_garbage_end_at_once_on_the_tls_port(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)))
    for greeting in (raw.associate_rq(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(100)):
        with socket.create_connection(("127.0.0.1", reception.port), timeout=10) as connection:
            began = time.monotonic()
            connection.sendall(greeting)
            with suppress(ConnectionError):
                while connection.recv(100):  # TLS garbage is answered with an alert
                    pass
            assert time.monotonic() - began < 2
    with other_protocols(reception.port):
        assert echoscu(reception.port, extra=over_tls(authority, device)).ok


def test_an_established_sender_whose_place_is_needed_sees_the_abort_through_tls(
    make_reception: type_make, authority: Authority, own: Pair, device: Pair
) -> None:
    reception = make_reception(tls=server_context(files(own, authority)), limits=Limits(max_associations=1))
    with raw.RawSender(reception.port) as idle:
        idle.socket = client_context(authority, device).wrap_socket(idle.socket)
        assert idle.associate() == ASSOCIATE_AC
        assert echoscu(reception.port, extra=over_tls(authority, device)).ok
        assert idle.receive()[0] == raw.ABORT


def problem(**changes: object) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        days_valid(files(**changes)) if changes.pop("date", False) else server_context(files(**changes))  # type: ignore[arg-type]
    assert raised.value.remedy
    return raised.value


def test_every_file_that_cannot_be_used_is_named_with_a_remedy(
    authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    both = {"own": own, "authority": authority}
    text, encrypted = tmp_path / "text.pem", tmp_path / "encrypted.key"
    text.write_text("no certificate\n")
    openssl("pkey", "-in", own.key, "-aes256", "-passout", "pass:secret", "-out", encrypted)
    expired = authority.sign("expired", days=-1)
    absent = tmp_path / "absent.pem"
    assert "dicom.tls.certificate" in problem(**both, certificate=absent).what
    assert "No such file" in problem(**both, certificate=absent).what
    assert "dicom.tls.key" in problem(**both, key=absent).what
    assert "dicom.tls.ca" in problem(**both, ca=absent).what
    assert "holds no usable certificate" in problem(**both, certificate=text).what
    assert "holds no usable private key" in problem(**both, key=text).what
    assert "holds no usable certificate" in problem(**both, ca=text).what
    assert "is encrypted" in problem(**both, key=encrypted).what
    assert "does not belong to" in problem(**both, key=device.key).what
    assert "require_client" in problem(**both, ca=None).what
    assert "expired" in problem(own=expired, authority=authority, date=True).what
    assert 1 < days_valid(files(own, authority)) < 3


def test_check_says_until_when_the_certificate_is_good_and_what_is_wrong_with_it(
    authority: Authority, own: Pair, tmp_path: Path
) -> None:
    from dicomnode.cli.check import _certificates, _guarded
    from dicomnode.settings import load_settings

    def certificates(pair: Pair) -> list[tuple[bool, str, str]]:
        tls = {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(authority.certificate)}
        config = tmp_path / "dicomnode.toml"
        config.write_text(settings_text({"dicom": {"tls": tls}}, {}))
        return [(one.ok, one.detail, one.remedy) for one in _guarded("certificates", _certificates, load_settings(config))]

    ((ok, detail, remedy),) = certificates(own)
    assert ok
    assert "valid for 2 more days" in detail
    assert "renewed" in remedy
    ((ok, detail, remedy),) = certificates(authority.sign("past", days=-1))
    assert not ok
    assert "expired" in detail
    assert remedy


def test_the_receive_role_reads_its_certificates_from_the_settings(
    authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    tls = {"certificate": str(own.certificate), "key": str(own.key), "ca": str(authority.certificate)}
    with ReceiveProcess(tmp_path, settings={"dicom": {"tls": tls}}) as node:
        assert storescu(node.port, saved(ct(), tmp_path), extra=over_tls(authority, device)).ok
        wait_until(lambda: "released" in node.output(), timeout_s=10, what="the association's end in the log")


def serial_seen(port: int, authority: Authority, device: Pair) -> str:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        client_context(authority, device).wrap_socket(plain) as secure,
    ):
        return str((secure.getpeercert() or {})["serialNumber"])


def test_a_renewed_certificate_is_taken_without_a_restart_and_a_broken_one_keeps_the_old(
    authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    used = Pair(tmp_path / "used.pem", tmp_path / "used.key")

    def put(certificate: bytes, key: bytes) -> None:
        for path, content in ((used.certificate, certificate), (used.key, key)):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)

    put(own.certificate.read_bytes(), own.key.read_bytes())
    tls = {"certificate": str(used.certificate), "key": str(used.key), "ca": str(authority.certificate)}
    renewed, expired = authority.sign("renewed"), authority.sign("renewed late", days=-1)
    with ReceiveProcess(tmp_path / "node", settings={"dicom": {"tls": tls}}) as node:
        first, pid = serial_seen(node.port, authority, device), node.pid
        with raw.RawSender(node.port) as running:
            running.socket = client_context(authority, device).wrap_socket(running.socket)
            assert running.associate() == ASSOCIATE_AC
            for broken, named in (
                ((b"half a certifica", own.key.read_bytes()), "holds no usable certificate"),
                ((renewed.certificate.read_bytes(), own.key.read_bytes()), "does not belong to"),
                ((expired.certificate.read_bytes(), expired.key.read_bytes()), "has expired"),
            ):
                put(*broken)
                wait_until(lambda named=named: named in node.output(), timeout_s=20, what=f"{named!r} in the log")  # type: ignore[misc]
                assert serial_seen(node.port, authority, device) == first
            said = [line for line in node.output().splitlines() if "was not taken" in line]
            assert len(said) == 3
            assert all("dicom.tls.certificate" in line and "dicomnode check says how" in line for line in said)
            put(renewed.certificate.read_bytes(), renewed.key.read_bytes())
            wait_until(lambda: serial_seen(node.port, authority, device) != first, timeout_s=20, what="the new certificate")
            assert storescu(node.port, saved(ct(), tmp_path), extra=over_tls(authority, device)).ok
            assert running.release() == RELEASE_RP
        assert node.pid == pid
        assert node.stop() == 0


def test_sighup_takes_new_certificates_too_and_with_broken_ones_the_node_goes_on_as_it_was(
    authority: Authority, own: Pair, device: Pair, tmp_path: Path
) -> None:
    renewed, used = authority.sign("renewed by signal"), tmp_path / "used.pem"
    used.write_bytes(own.certificate.read_bytes())
    key = tmp_path / "used.key"
    key.write_bytes(own.key.read_bytes())
    tls = {"certificate": str(used), "key": str(key), "ca": str(authority.certificate)}
    node = Node(tmp_path / "node", settings={"dicom": {"tls": tls}})
    node.start("receive")
    try:
        first = serial_seen(node.port, authority, device)
        key.write_bytes(renewed.key.read_bytes())
        os.kill(node.pid, signal.SIGHUP)
        wait_until(lambda: "settings were not reloaded" in node.output(), timeout_s=20, what="the complaint")
        assert "does not belong to dicom.tls.certificate" in node.output()
        assert "name the key with which the certificate was asked for" in node.output()
        assert serial_seen(node.port, authority, device) == first
        used.write_bytes(renewed.certificate.read_bytes())
        os.kill(node.pid, signal.SIGHUP)

        def another() -> bool:
            with suppress(OSError):  # the role starts anew
                return serial_seen(node.port, authority, device) != first
            return False

        wait_until(another, timeout_s=60, what="the new certificate")
    finally:
        node.stop()
