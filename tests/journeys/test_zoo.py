"""A bundle of the Model Zoo by its name: the address is built from the Zoo's own list, the ZIP held to its SHA-256.

The Zoo itself is not asked: a web server of this machine stands at its addresses.
"""

import json
import socket
from hashlib import sha256
from pathlib import Path

import pytest

from dicomnode.cli import pipeline_source
from tests.cli.conftest import command, type_command  # noqa: F401 - a fixture
from tests.journeys.test_bundles import node, served, zipped_bundle  # noqa: F401 - fixtures


@pytest.fixture
def zoo(served: str, zipped_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """SHA-256 of spleen_ct_segmentation 0.5.3, which the served list names as the newest of three."""
    here = served.rpartition("/")[0]
    listed = {f"spleen_ct_segmentation_v{version}": {"checksum": "0" * 40, "source": ""} for version in ("0.5.10", "0.5.9")}
    listed["spleen_ct_segmentation_v0.5.10"]["source"] = served
    listed["brats_mri_segmentation_v0.4.0"] = {"checksum": "0" * 40, "source": ""}
    (zipped_bundle.parent / "model_info.json").write_text(json.dumps(listed))
    monkeypatch.setattr(pipeline_source, "ZOO_INDEX", f"{here}/model_info.json")
    monkeypatch.setattr(pipeline_source, "ZOO_URL", here + "/{0}_v{1}.zip")
    return sha256(zipped_bundle.read_bytes()).hexdigest()


def test_the_newest_or_a_named_version_is_fetched_and_held_to_its_digest(
    command: type_command,  # noqa: F811
    node: Path,  # noqa: F811
    zoo: str,
) -> None:
    for source in ("zoo:spleen_ct_segmentation", "zoo:spleen_ct_segmentation@0.5.3"):
        wrong = command("pipelines", "add", source, "--sha256", "0" * 64, "--config", node)
        assert wrong.code == 2
        assert zoo in wrong.error[0]
        added = command("pipelines", "add", source, "--sha256", zoo, "--replace", "--json", "--config", node)
        assert added.code == 0, added.err
        assert added.document["name"] == "spleen_ct_segmentation"
        noted = json.loads((Path(added.document["folder"]) / "provenance.json").read_text())
        assert (noted["source"], noted["sha256"]) == (source, zoo)


def test_what_the_zoo_has_not_and_a_network_that_is_not_there_are_said(
    command: type_command,  # noqa: F811
    node: Path,  # noqa: F811
    zoo: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = command("pipelines", "add", "zoo:spleen_ct", "--config", node)
    assert (unknown.code, "spleen_ct_segmentation" in unknown.error[1]) == (2, True)
    missing = command("pipelines", "add", "zoo:spleen_ct_segmentation@9.9.9", "--sha256", zoo, "--config", node)
    assert (missing.code, "404" in missing.error[0]) == (2, True)
    assert command("pipelines", "add", "zoo:../up", "--config", node).code == 2
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening
        monkeypatch.setattr(pipeline_source, "ZOO_INDEX", f"http://127.0.0.1:{nobody.getsockname()[1]}/model_info.json")
        away = command("pipelines", "add", "zoo:spleen_ct_segmentation", "--config", node)
    assert away.code == 3
    assert "bring the ZIP as a file" in away.error[1]


def test_the_real_addresses_are_encrypted_and_the_zoos() -> None:
    assert pipeline_source.ZOO_INDEX.startswith("https://raw.githubusercontent.com/Project-MONAI/model-zoo/")
    assert pipeline_source.ZOO_URL.format("a", "1.2.3").endswith(
        "/Project-MONAI/model-zoo/releases/download/hosting_storage_v1/a_v1.2.3.zip"
    )
