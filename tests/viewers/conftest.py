"""The viewer with what it needs, or a loud reason why there is none. Screenshots are kept in $DICOMNODE_ARTEFACTS."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.orthanc import Orthanc
from tests.viewers.chromium import Chromium
from tests.viewers.ohif import Ohif, dicomweb_settings
from tests.viewers.server import ViewerServer
from tests.viewers.site import SiteUnavailable, ohif_site

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site() -> Path:
    """The built OHIF."""
    for tool, package in (("chromium", "chromium"), ("Orthanc", "orthanc")):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
            pytest.skip(f"no viewer: {tool} is missing — apt-get install --no-install-recommends {package}")
    try:
        dicomweb_settings()
        return ohif_site()
    except (SiteUnavailable, FileNotFoundError) as missing:
        pytest.skip(f"no viewer: {missing}")


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept after the run."""
    folder = Path(os.environ.get("DICOMNODE_ARTEFACTS") or CHECKOUT / ".venv" / "artefacts") / "viewers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One Chromium for all tests; every test opens its own study in it."""
    with Chromium(tmp_path_factory.mktemp("chromium"), width=1280, height=800) as one:
        yield one


@pytest.fixture
def viewer(site: Path, browser: Chromium, tmp_path: Path) -> Iterator[Callable[[list[Path]], Ohif]]:
    """`ohif = viewer(files)`: a PACS that holds these files, and OHIF on it."""
    started: list[tuple[Orthanc, ViewerServer]] = []

    def show(files: list[Path]) -> Ohif:
        pacs = Orthanc(tmp_path / f"pacs{len(started)}", settings=dicomweb_settings())
        pacs.start()
        server = ViewerServer(site, pacs.http_port)
        server.__enter__()
        started.append((pacs, server))
        pacs.upload(files)
        return Ohif(browser, server.address, pacs.study_uids()[0], tmp_path)

    yield show
    for pacs, server in started:
        server.__exit__()
        pacs.kill()
