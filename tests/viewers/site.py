"""OHIF as it is published: the npm package @ohif/app holds the built site. Fetched once into .venv/ and verified."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "@ohif/app", "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
SITES = Path(__file__).resolve().parents[2] / ".venv" / "viewers"
# Microscopy, the prompts of its annotation models and source maps: two thirds of the bytes, and no test looks at them.
NOT_NEEDED = ("package/dist/ort/", "package/dist/dicom-microscopy-viewer/")
FETCHING_S = 240.0

# https://docs.ohif.org/configuration/dataSources/dicom-web
CONFIGURATION = """
window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc',
      name: 'orthanc',
      wadoUriRoot: '/wado',
      qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false,
      imageRendering: 'wadors',
      thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true,
      supportsFuzzyMatching: false,
      supportsWildcard: true,
      omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true },
    },
  }],
};
"""


class SiteUnavailable(Exception):
    """OHIF cannot be had here; the text says what is missing."""


def ohif_site() -> Path:
    """The folder of the built site, configured for a DICOMweb server of the same origin. Raises SiteUnavailable."""
    site = SITES / f"ohif-{VERSION}"
    if not (site / "index.html").is_file():
        site.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=site.parent) as folder:
            made = _unpacked(_fetched(Path(folder)), Path(folder))
            shutil.rmtree(site, ignore_errors=True)
            made.rename(site)
    (site / "app-config.js").write_text(CONFIGURATION)
    return site


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise SiteUnavailable("npm is missing — apt-get install --no-install-recommends npm")
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}", "--pack-destination", folder],
            cwd=folder, capture_output=True, text=True, check=False, timeout=FETCHING_S,
            env={**os.environ, "npm_config_update_notifier": "false"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SiteUnavailable(f"npm did not fetch {PACKAGE} within {FETCHING_S:.0f} s") from None
    archive = next(folder.glob("*.tgz"), None)
    if done.returncode or archive is None:
        raise SiteUnavailable(f"npm cannot fetch {PACKAGE}@{VERSION} — allow this machine to reach an npm registry")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise RuntimeError(f"{PACKAGE}@{VERSION} is not the package that was tested: its SHA-512 differs")
    return archive


def _unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        wanted = [
            member
            for member in packed
            if member.name.startswith("package/dist/")
            and not member.name.startswith(NOT_NEEDED)
            and not member.name.endswith(".map")
        ]
        packed.extractall(folder, members=wanted, filter="data")
    return folder / "package" / "dist"
