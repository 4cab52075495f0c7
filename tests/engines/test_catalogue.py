"""Which pipelines there are, by reading and hashing alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.domain.errors import PipelineError
from dicomnode.engines import check_pipeline, find_pipelines, load_pipeline
from dicomnode.engines.digest import bundle_digest, file_digest
from tests.engines.conftest import TINY

PIPELINES = Path(__file__).parent.parent.parent / "pipelines"


def test_finding_and_checking_load_no_torch() -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from dicomnode.engines import find_pipelines, check_pipeline, load_pipeline, Pipeline;"
        f"found = find_pipelines([Path({str(TINY.parent)!r})]); check_pipeline(found[0].folder);"
        "print(found[0].name, sorted({'torch', 'monai', 'highdicom', 'pynetdicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "tiny []"


def test_of_two_pipelines_with_one_name_the_earlier_folder_wins(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "own" / "tiny")
    found = find_pipelines([tmp_path / "missing", tmp_path / "own", TINY.parent])
    assert [info.folder for info in found] == [tmp_path / "own" / "tiny"]


def test_the_digest_names_every_byte_that_can_change_a_result_and_nothing_else(bundle: Path) -> None:
    digest = bundle_digest(bundle)
    assert digest == bundle_digest(TINY)
    (bundle / "docs").mkdir()
    (bundle / "docs" / "README.md").write_text("words")
    (bundle / "configs" / "__pycache__").mkdir()
    (bundle / "configs" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert bundle_digest(bundle) == digest
    for name in ("pipeline.toml", "configs/inference.json", "configs/metadata.json", "models/model.safetensors"):
        before = (bundle / name).read_bytes()
        (bundle / name).write_bytes(before + b" ")
        assert bundle_digest(bundle) != digest, name
        (bundle / name).write_bytes(before)
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text("")
    assert bundle_digest(bundle) != digest


def test_a_recorded_sha256_of_the_weights_is_held_to(bundle: Path) -> None:
    weights = bundle / "models" / "model.safetensors"
    sidecar = bundle / "pipeline.toml"
    sidecar.write_text(sidecar.read_text() + f'\n[bundle]\nweights_sha256 = "{file_digest(weights)}"\n')
    assert load_pipeline(bundle, device="cpu")
    assert check_pipeline(bundle) == ()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert [(f.level, bool(f.remedy)) for f in check_pipeline(bundle)] == [("error", True)]
    with pytest.raises(PipelineError, match="not the ones"):
        load_pipeline(bundle, device="cpu")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ('name = "tiny"', "colour"),
        ('version = "1.0.0"', "version"),
        ("[classification]", "minimum"),
        ("channel = 2", "channel"),
    ],
)
def test_a_wrong_sidecar_is_named_by_its_key(change: str, word: str, bundle: Path) -> None:
    replacement = {
        "colour": f"colour = 1\n{change}",
        "version": 'version = "one"',
        "minimum": "[classification]\nminimum = 1",
        "channel": "channel = 0",
    }
    path = bundle / "pipeline.toml"
    path.write_text(path.read_text().replace(change, replacement[word], 1))
    (finding,) = check_pipeline(bundle)
    assert finding.level == "error"
    assert word in finding.what
    assert find_pipelines([bundle.parent]) == ()


def test_present_without_a_lesion_to_show_cannot_be_configured(bundle: Path) -> None:
    path = bundle / "pipeline.toml"
    path.write_text(path.read_text().replace("threshold = 0.5", "threshold = 0.3"))
    (finding,) = check_pipeline(bundle)
    assert "min_probability" in finding.what


def test_a_channel_that_the_network_does_not_have_is_found(bundle: Path) -> None:
    metadata = bundle / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    del content["network_data_format"]["outputs"]["pred"]["channel_def"]["2"]
    metadata.write_text(json.dumps(content))
    assert any(f.level == "error" and "[2]" in f.what for f in check_pipeline(bundle))


def test_missing_parts_of_a_bundle_are_named(bundle: Path) -> None:
    (bundle / "models" / "model.safetensors").unlink()
    (bundle / "configs" / "inference.json").unlink()
    assert [f.level for f in check_pipeline(bundle)] == ["error", "error"]
    assert [f.level for f in check_pipeline(bundle / "nothing")] == ["error"]


def test_weights_that_are_no_tensors_are_found_before_any_run(bundle: Path) -> None:
    (bundle / "models" / "model.safetensors").write_bytes(b"not tensors at all")
    assert ["no tensors" in finding.what for finding in check_pipeline(bundle) if finding.level == "error"] == [True]


def test_shipped_pipelines_can_be_described() -> None:
    infos = find_pipelines([PIPELINES])
    assert [info.name for info in infos] == ["chest_ct", "series_understanding"]
    for info in infos:
        assert info.demonstration
        assert not [f for f in check_pipeline(info.folder) if f.level == "error"], info.name
