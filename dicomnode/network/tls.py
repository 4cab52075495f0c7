"""TLS for the DICOM listener: the BCP 195 profile of PS3.15 B.12, from files that the settings name.

TLS 1.2 and 1.3 with forward secrecy; and a socket that the association's loop uses like any other.
"""

import socket
import ssl
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from dicomnode.domain.errors import SettingsError

_log = structlog.get_logger("receiving")

# RFC 9325 4.2 for TLS 1.2: ephemeral keys and authenticated encryption only. Those of TLS 1.3 are all of that kind.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_TIMEVAL = struct.Struct("ll")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. certificate: ours, then the chain above it. ca: who signs certificates of peers."""

    certificate: Path
    key: Path
    ca: Path | None = None
    require_client: bool = True


class TlsSocket(ssl.SSLSocket):
    """The server's end of a TLS connection. What was read of it before it was handed on can be put back."""

    _put_back = b""

    def unread(self, data: bytes) -> None:
        """Let the next reader get this first."""
        self._put_back = data + self._put_back

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As of a socket."""
        if self._put_back:
            first, self._put_back = self._put_back[:buflen], self._put_back[buflen:]
            return first
        return super().recv(buflen, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """As of a socket."""
        if self._put_back:
            view = memoryview(buffer).cast("B")
            count = min(len(self._put_back), nbytes or len(view), len(view))
            view[:count] = self._put_back[:count]
            self._put_back = self._put_back[count:]
            return count
        return super().recv_into(buffer, nbytes, flags)

    def setsockopt(self, level: int, option: int, value: Any, *more: Any) -> None:
        """As of a socket. Times for receiving count although OpenSSL would read on after them: they become Python's own."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVTIMEO):
            seconds, micros = _TIMEVAL.unpack(value)
            self.settimeout(seconds + micros / 1e6 or None)
        elif (level, option) != (socket.SOL_SOCKET, socket.SO_SNDTIMEO):
            super().setsockopt(level, option, value, *more)

    def shutdown(self, how: int) -> None:
        """Of the connection below: another thread may be reading, whose TLS state must stay."""
        socket.socket.shutdown(self, how)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The listener's context. Raises SettingsError that names file and remedy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0  # sessions are long; a ticket written to a client that has gone would end ours with a reset
    _load_own(context, files)
    if files.ca is not None:
        _load_ca(context, files.ca)
        context.verify_mode = ssl.CERT_REQUIRED if files.require_client else ssl.CERT_OPTIONAL
    elif files.require_client:
        raise SettingsError(
            "dicom.tls.require_client is true, and dicom.tls.ca names nobody who signs certificates of peers",
            "set dicom.tls.ca to a PEM file, or dicom.tls.require_client = false",
        )
    return context


def days_valid(files: TlsFiles) -> float:
    """How many days our certificate is still good for. Raises SettingsError if it is not good now, or too weak to be used."""
    server = server_context(TlsFiles(files.certificate, files.key, require_client=False))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust exactly this certificate, whoever signed it
    client.load_verify_locations(files.certificate)
    try:
        certificate = _handshake(server, client)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS fails"
        raise SettingsError(
            f"dicom.tls.certificate {files.certificate} cannot be used: {str(reason).lower().replace('_', ' ')}",
            "put a valid certificate and its key there (openssl x509 -dates -noout -in FILE shows its dates)",
        ) from None
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400


class RenewedFiles:
    """The files of a listener that is running: `look` gives a context when they hold another certificate that can be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._judged = self._seen = self._stamps()

    def look(self) -> ssl.SSLContext | None:
        """A context of the files if they changed and are good, else None: the one in use stays, and the log says why.

        Files are judged when a second look finds them as the first did: certificate and key are replaced one after the other.
        """
        stamps = self._stamps()
        settled, self._seen = stamps == self._seen, stamps
        if stamps == self._judged or not settled:
            return None
        self._judged = stamps
        try:
            days_valid(self._files)
            context = server_context(self._files)
        except SettingsError as error:
            setting, how = self._told(error)
            remedy = "the new TLS certificate was not taken, the old one stays: correct the file, dicomnode check says how"
            _log.error(remedy, setting=setting, how=how)
            return None
        _log.info("a new TLS certificate is in use for new connections")
        return context

    def _told(self, error: SettingsError) -> tuple[str, str]:
        """Setting and what is wrong with it, as a log may hold it: without paths."""
        words = error.what.replace(",", "")
        for path in self._paths:
            words = words.replace(f" {path}", "")
        setting, _, how = words.partition(" ")
        return setting, how[:80]

    @property
    def _paths(self) -> list[Path]:
        return [path for path in (self._files.certificate, self._files.key, self._files.ca) if path is not None]

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells a file from its successor: a copy may have kept its predecessor's time, a link names another file."""
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def refusal_of(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    """Why these two would not come together, in OpenSSL's words; "" where they would."""
    try:
        _handshake(server, client)
    except ssl.SSLError as error:
        return str(getattr(error, "verify_message", "") or error.reason or "TLS fails").lower().replace("_", " ")
    return ""


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """A handshake in memory; the server's certificate as the client sees it. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    at_client, at_server = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    waiting = [at_client, at_server]
    for _ in range(20):
        for one in tuple(waiting):
            try:
                one.do_handshake()
                waiting.remove(one)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            break
    return dict(at_client.getpeercert() or {})


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL asks on the terminal, and a service waits for ever


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    for setting, path in (("certificate", files.certificate), ("key", files.key)):
        _readable(setting, path)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ValueError:
        raise SettingsError(
            f"dicom.tls.key {files.key} is encrypted, and nobody can enter its password",
            "write it without one, readable by the service's user only: openssl pkey -in KEY -out NEW",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"dicom.tls.key {files.key} does not belong to dicom.tls.certificate {files.certificate}",
                "name the key with which the certificate was asked for",
            ) from None
        setting, path = ("certificate", files.certificate) if not _holds_certificate(files.certificate) else ("key", files.key)
        raise SettingsError(
            f"dicom.tls.{setting} {path} holds no usable {'private key' if setting == 'key' else setting} in PEM form",
            "convert it with openssl (DER: openssl x509 or pkey with -inform DER; PKCS#12: openssl pkcs12 -nodes)",
        ) from None


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    _readable("ca", ca)
    if not _holds_certificate(ca):
        raise SettingsError(
            f"dicom.tls.ca {ca} holds no usable certificate in PEM form",
            "put the certificates of those who sign peers' certificates there, one after the other",
        )
    context.load_verify_locations(ca)


def _holds_certificate(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _readable(setting: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        remedy = "correct the path" if isinstance(error, FileNotFoundError) else "let the service's user read it"
        raise SettingsError(f"dicom.tls.{setting} {path} cannot be read: {error.strerror}", remedy) from None
