"""Certificates as a hospital's own authority issues them, made by openssl for one test."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `folder` holds all files."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip

    def sign(self, name: str, *, days: int = 2, address: str = "") -> Pair:
        """A certificate with an RSA key, as most devices have. days: -1 for one that has expired. address: for this server."""
        key, request, certificate = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-days", days, "-out", certificate, *self._extensions(address),
        )  # fmt: skip
        return Pair(certificate, key)

    def _extensions(self, address: str) -> list[str | Path]:
        if not address:
            return []
        extensions = self._folder / "extensions.cnf"
        extensions.write_text(f"subjectAltName=IP:{address}\n")
        return ["-extfile", extensions]
