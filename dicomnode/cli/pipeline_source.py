"""Where `pipelines add` gets a bundle from: a folder, a ZIP, a URL of one, or the Model Zoo by name."""

import hashlib
import json
import re
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dicomnode.domain.errors import PeerUnreachable, UsageError
from dicomnode.settings_problems import nearest

LARGEST_BUNDLE_BYTES = 8 * 2**30
TIMEOUT_S = 60.0
_CHUNK_BYTES = 2**20
_ZOO = re.compile(r"zoo:([A-Za-z0-9_]+)(?:@(\d+\.\d+\.\d+))?")
# The Model Zoo's own list of bundles: {"spleen_ct_segmentation_v0.5.3": {"checksum": SHA-1, "source": URL}, …}.
ZOO_INDEX = "https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"
ZOO_URL = "https://github.com/Project-MONAI/model-zoo/releases/download/hosting_storage_v1/{0}_v{1}.zip"
_LARGEST_INDEX_BYTES = 16 * 2**20
_REMEDY = "name a folder of a bundle (with pipeline.toml, or a MONAI bundle's configs/metadata.json), or a ZIP of one"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A copy of a bundle: its folder, the SHA-256 of the ZIP that it came in (None for a folder), the name it goes by."""

    folder: Path
    zip_sha256: str | None
    called: str


def fetch(source: str, workplace: Path, sha256: str | None) -> Fetched:
    """A copy in `workplace`. Raises UsageError for what is no bundle or has another SHA-256, PeerUnreachable."""
    if source.startswith("zoo:"):
        source = _of_zoo(source, workplace)
    copy = workplace / "new"
    path = _downloaded(source, workplace, sha256) if re.match(r"https?://", source) else Path(source)
    digest = None
    if path.is_dir():
        if sha256 is not None:
            raise UsageError("a folder has no SHA-256", "say --sha256 with a ZIP or a URL")
        shutil.copytree(path, copy, symlinks=True)
    elif zipfile.is_zipfile(path):
        digest = _held_to(path, source, sha256)
        _unzip(path, copy, source)
    else:
        raise UsageError(f"{source} is neither a folder nor a ZIP file", _REMEDY)
    if any(one.is_symlink() for one in copy.rglob("*")):
        raise UsageError(f"{source} holds symbolic links", "replace them by the files that they point to")
    return Fetched(_bundle_in(copy, source), digest, _called(source))


def _of_zoo(source: str, workplace: Path) -> str:
    """The address of a bundle of the Model Zoo; without a version its newest. Raises UsageError, PeerUnreachable."""
    named = _ZOO.fullmatch(source)
    if named is None:
        raise UsageError(f"{source} names no bundle of the Model Zoo", "say zoo:NAME or zoo:NAME@1.2.3")
    name, version = named.groups()
    if version is not None:
        return ZOO_URL.format(name, version)
    index = workplace / "model_info.json"
    _download(ZOO_INDEX, index, _LARGEST_INDEX_BYTES)
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        versions = [found.group(1) for key in known if (found := re.fullmatch(rf"{name}_v(\d+\.\d+\.\d+)", str(key)))]
    except (ValueError, TypeError) as error:
        raise UsageError(f"the Model Zoo's list {ZOO_INDEX} cannot be read: {error}", f"say zoo:{name}@1.2.3") from None
    if not versions:
        near = nearest(name, sorted({re.sub(r"_v[\d.]+$", "", str(key)) for key in known}))
        raise UsageError(f"the Model Zoo has no bundle {name!r}", f"the nearest one is {near!r}")
    newest = max(versions, key=lambda one: tuple(map(int, one.split("."))))
    entry = known[f"{name}_v{newest}"]
    return str(entry["source"]) if isinstance(entry, dict) and entry.get("source") else ZOO_URL.format(name, newest)


def _bundle_in(copy: Path, source: str) -> Path:
    """The folder that holds pipeline.toml, or else a MONAI bundle's or nnU-Net's description, nearest to the top."""
    for pattern, up in (("pipeline.toml", 0), ("configs/metadata.json", 1), ("plans.json", 0)):
        found = sorted(copy.rglob(pattern), key=lambda one: (len(one.parts), one))
        if found:
            return found[0].parents[up]
    raise UsageError(f"{source} holds no pipeline.toml and no MONAI bundle", _REMEDY)


def _called(source: str) -> str:
    """The last part of the path without ending and version: "spleen_ct_segmentation" of …/spleen_ct_segmentation_v0.5.3.zip."""
    name = Path(urlsplit(source).path).name if re.match(r"https?://", source) else Path(source).absolute().name
    return re.sub(r"[_-]v?\d+(\.\d+)+$", "", name.removesuffix(".zip"))


def _downloaded(url: str, workplace: Path, sha256: str | None) -> Path:
    """The file at `url`. Over plain http nobody vouches for the sender, so its SHA-256 must be said."""
    if url.startswith("http://") and sha256 is None:
        raise UsageError(f"{url} is not encrypted, anyone on the way could change it", "use https, or say its --sha256")
    target = workplace / "download.zip"
    _download(url, target, LARGEST_BUNDLE_BYTES)
    return target


def _download(url: str, target: Path, most_bytes: int) -> None:
    written = 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "dicomnode"})  # noqa: S310 - fetch took http and https only
        with urllib.request.build_opener(_NoOtherScheme).open(request, timeout=TIMEOUT_S) as answer, target.open("wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > most_bytes:
                    raise UsageError(f"{url} is larger than {most_bytes >> 20} MB", "name a pipeline's own ZIP")
                file.write(chunk)
    except urllib.error.HTTPError as error:
        raise UsageError(f"{url} answers {error.code} {error.reason}", "correct the address") from None
    except OSError as error:
        raise PeerUnreachable(f"{url} cannot be read: {error}", "check the network, or bring the ZIP as a file") from None


class _NoOtherScheme(urllib.request.HTTPRedirectHandler):
    """From https no redirect leads to plain http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request of the new place, or HTTPError."""
        if not newurl.startswith("https://") and req.full_url.startswith("https://"):
            raise urllib.error.HTTPError(newurl, code, "a redirect from https to another scheme", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _held_to(path: Path, source: str, sha256: str | None) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and sha256.lower() != digest:
        raise UsageError(
            f"{source} has the SHA-256 {digest}, not the one that was said", "get it again, from who vouches for it"
        )
    return digest


def _unzip(path: Path, target: Path, source: str) -> None:
    """Unpack within `target`: no way out of it, no links, no bombs."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_BUNDLE_BYTES:
            raise UsageError(f"{source} unpacks to more than {LARGEST_BUNDLE_BYTES >> 30} GB", "name a pipeline's own ZIP")
        for member in archive.infolist():
            outside = not (target / member.filename).resolve().is_relative_to(target.resolve())
            if outside or stat.S_ISLNK(member.external_attr >> 16):
                raise UsageError(f"{source} holds {member.filename!r}, which leads out of it", "do not use this ZIP")
        try:
            archive.extractall(target)  # every member was looked at
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            # RuntimeError: zipfile's word for an encrypted member.
            raise UsageError(f"{source} cannot be unpacked: {error}", "get it again, or pack it as a plain ZIP") from None
