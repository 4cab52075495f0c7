"""No code of a bundle runs unless its digest is trusted."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.engines.digest import bundle_digest
from dicomnode.engines.safety import examine

Edit = Callable[[dict[str, Any]], None]
Change = Callable[[Edit], Path]


def _transforms(config: dict[str, Any]) -> list[Any]:
    steps: list[Any] = config["preprocessing"]["transforms"]
    return steps


WITNESS = "code_of_a_bundle_ran"  # a file in the working directory, which the tests put into a temporary folder

ATTACKS: dict[str, Edit] = {
    "a target outside MONAI": lambda c: _transforms(c).append({"_target_": "os.system", "command": f"touch {WITNESS}"}),
    "a target that is a function": lambda c: _transforms(c).append({"_target_": "monai.transforms.utils.os.system"}),
    "a target that is a reference": lambda c: c.update(x="os.system", network_def={"_target_": "@x"}),
    "a target that is a mapping": lambda c: c.update(
        network_def={"_target_": {"_target_": "os.system", "command": f"touch {WITNESS}"}}
    ),
    "a target in a list": lambda c: c.update(network_def=[{"_target_": "subprocess.run", "args": ["touch", WITNESS]}]),
    "an import statement": lambda c: c["inferer"].update(overlap="$import os"),
    "an import from": lambda c: c["inferer"].update(overlap="$from os import system"),
    "a call of __import__": lambda c: c["inferer"].update(overlap=f"$__import__('os').system('touch {WITNESS}')"),
    "a call through an attribute": lambda c: c["inferer"].update(overlap=f"$torch.os.system('touch {WITNESS}')"),
    "a call through numpy": lambda c: c["inferer"].update(overlap=f"$np.savetxt('{WITNESS}', [1])"),
    "a method of a reference": lambda c: c["inferer"].update(overlap="$@image_key.__class__.__mro__"),
    "a lambda": lambda c: c["inferer"].update(overlap=f"$(lambda: open('{WITNESS}', 'w'))()"),
    "a comprehension": lambda c: c["inferer"].update(overlap="$[x for x in (1,)]"),
    "a walrus": lambda c: c["inferer"].update(overlap="$(x := 1)"),
    "a reference inside a string": lambda c: c["inferer"].update(overlap="$'@image_key + evil'"),
    "an expression in _requires_": lambda c: c["inferer"].update(_requires_=f"$open('{WITNESS}', 'w')"),
    "an expression in _disabled_": lambda c: c["inferer"].update(_disabled_=f"$open('{WITNESS}', 'w')"),
    "a mode": lambda c: c["inferer"].update(_mode_="debug"),
    "another file": lambda c: c["inferer"].update(overlap="%/etc/config.json::overlap"),
    "a file beside": lambda c: c["inferer"].update(overlap="%other.yaml::overlap"),
    "code behind a reference": lambda c: c.update(
        hidden={"_target_": "os.system", "command": f"touch {WITNESS}"},
        inferer={"_target_": "SimpleInferer", "_requires_": "@hidden"},
    ),
    "code behind a macro": lambda c: c.update(
        hidden={"_target_": "os.system", "command": f"touch {WITNESS}"}, inferer="%hidden"
    ),
    "a free callable": lambda c: _transforms(c).append({"_target_": "Lambdad", "keys": "image", "func": "$print"}),
    "weights from elsewhere": lambda c: c.update(network_def={"_target_": "EfficientNetBN", "pretrained": True}),
    "a class found by name": lambda c: _transforms(c).append({"_target_": "TorchVisiond", "keys": "image", "name": "Resize"}),
    "a number that fills memory": lambda c: c["inferer"].update(overlap="$[0] * 1000000000000"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bundle_that_is_not_trusted_runs_no_code(
    name: str, change_config: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = change_config(ATTACKS[name])
    with pytest.raises(PipelineError):
        load_pipeline(folder, device="cpu")
    assert not Path(WITNESS).exists()


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "a target that is a function"])
def test_the_check_without_torch_names_the_place(name: str, change_config: Change) -> None:
    errors = [f for f in check_pipeline(change_config(ATTACKS[name])) if f.level == "error"]
    assert errors
    assert all(finding.remedy for finding in errors)
    assert any(re.match(r"(preprocessing|network_def|inferer|hidden)", finding.what) for finding in errors)


def test_what_no_wanted_key_refers_to_is_neither_judged_nor_built(change_config: Change, tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    def add_training(config: dict[str, Any]) -> None:
        config["imports"] = ["$import os"]
        config["initialize"] = [f"$__import__('pathlib').Path('{witness}').touch()"]
        config["evaluator"] = {"_target_": "os.system", "command": f"touch {witness}"}

    assert load_pipeline(change_config(add_training), device="cpu").identity.name == "tiny"
    assert not witness.exists()


def test_plain_expressions_and_references_are_allowed() -> None:
    config = {
        "roi": [96, 96, 96],
        "steps_a": [{"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"}],
        "steps_b": [],
        "preprocessing": "$@steps_a + @steps_b",
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@roi", "overlap": "$1 - 3 / 4", "device": "@device"},
        "network_def": {"_target_": "monai.networks.nets.UNet", "channels": "$[min(16, len(@roi)), 32]"},
    }
    examined = examine(config)
    assert examined.violations == ()
    assert set(examined.config) == set(config)


def test_a_trusted_digest_may_run_its_code_and_any_other_byte_ends_the_trust(change_config: Change, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    folder = change_config(
        lambda c: c["inferer"].update(overlap=f"$[__import__('pathlib').Path('{witness}').touch(), 0.25][1]")
    )
    digest = bundle_digest(folder)
    assert load_pipeline(folder, device="cpu", trusted_digests=frozenset({digest})).identity.digest == digest
    assert witness.exists()
    (folder / "configs" / "inference.json").write_bytes((folder / "configs" / "inference.json").read_bytes() + b"\n")
    with pytest.raises(PipelineError, match="not trusted"):
        load_pipeline(folder, device="cpu", trusted_digests=frozenset({digest}))


class _Opens:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


def _use_weights(folder: Path, name: str) -> None:
    sidecar = folder / "pipeline.toml"
    sidecar.write_text(sidecar.read_text() + f'\n[bundle]\nweights = "{name}"\n')


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_weights_that_are_a_program_are_refused_unread(way: str, bundle: Path, tmp_path: Path) -> None:
    witness, weights = tmp_path / "ran", bundle / "models" / "model.pt"
    if way == "torch":
        torch.save({"weight": _Opens(witness)}, weights)
    else:
        buffer = io.BytesIO()
        pickle.dump(_Opens(witness), buffer)
        weights.write_bytes(buffer.getvalue())
    _use_weights(bundle, "models/model.pt")
    with pytest.raises(PipelineError, match="plain tensors"):
        load_pipeline(bundle, device="cpu")
    assert not witness.exists()


def test_a_checkpoint_of_plain_tensors_is_taken(bundle: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(bundle / "models" / "model.safetensors")
    torch.save({"epoch": 3, "model": state}, bundle / "models" / "model.pt")
    _use_weights(bundle, "models/model.pt")
    assert load_pipeline(bundle, device="cpu").identity.name == "tiny"
    assert [f.level for f in check_pipeline(bundle)].count("error") == 0
    assert any("pickle" in f.what for f in check_pipeline(bundle))


def test_weights_outside_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "models" / "model.safetensors").rename(tmp_path / "model.safetensors")
    (bundle / "models" / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    with pytest.raises(PipelineError, match="out of the bundle"):
        load_pipeline(bundle, device="cpu")


def test_weights_of_another_network_are_refused(change_config: Change) -> None:
    with pytest.raises(PipelineError, match="do not fit"):
        load_pipeline(change_config(lambda c: c["network_def"].update(kernel_size=3, padding=1)), device="cpu")
