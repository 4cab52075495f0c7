"""TLS when we call: the BCP 195 profile of PS3.15 B.12, from the peer's files."""

import functools
import ssl
from pathlib import Path

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import PeerTls

# RFC 9325 4.2 for TLS 1.2: ephemeral keys and authenticated encryption only. Those of TLS 1.3 are all of that kind.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def client_context(tls: PeerTls) -> ssl.SSLContext:
    """For calls to a peer that is named by its certificate's host name. Raises PeerUnreachable that names file and remedy.

    Made anew when a file was replaced: renewed certificates need no restart.
    """
    files = (tls.certificate, tls.key, tls.ca)
    try:
        return _context(files, tls.pinned, tuple(None if path is None else path.stat().st_mtime_ns for path in files))
    except (OSError, ssl.SSLError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise PeerUnreachable(
            f"the certificates for TLS to a peer cannot be used: {said}", "correct dicom.tls; docs/tls.md shows how"
        ) from None


@functools.lru_cache(maxsize=64)
def _context(
    files: tuple[Path | None, Path | None, Path | None], pinned: bool, _changed: tuple[int | None, ...]
) -> ssl.SSLContext:
    certificate, key, ca = files
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    if pinned:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate is not None:
        context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL asks on the terminal, and a service waits for ever
