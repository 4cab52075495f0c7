"""No code of a bundle runs unless its digest is trusted."""

import io
import json
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.engines.digest import bundle_digest
from dicomnode.engines.expressions import objections
from dicomnode.engines.safety import OWN_WAY_KEYS, examine, from_memory, read_config

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


# --- a bundle that is run its own way: postprocessing is judged as strictly as the rest

TOUCH = f"$__import__('pathlib').Path('{WITNESS}').touch()"


def _post(config: dict[str, Any], *steps: Any) -> None:
    config["postprocessing"]["transforms"] += steps


OWN_WAY_ATTACKS: dict[str, Edit] = {
    "a target outside MONAI": lambda c: _post(c, {"_target_": "os.system", "command": f"touch {WITNESS}"}),
    "code in _requires_": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "pred", "_requires_": TOUCH}),
    "code in a list of _requires_": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "pred", "_requires_": [[TOUCH]]}),
    "code in _disabled_": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "pred", "_disabled_": TOUCH}),
    "an import in _disabled_": lambda c: _post(
        c, {"_target_": "EnsureTyped", "keys": "pred", "_disabled_": "$import antigravity"}
    ),
    "a mode": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "pred", "_mode_": "callable"}),
    "a mode by reference": lambda c: (
        c.update(m="callable"),
        _post(c, {"_target_": "EnsureTyped", "keys": "pred", "_mode_": "@m"}),
    )[0],
    "another file": lambda c: c.update(postprocessing="%/tmp/other.json::postprocessing"),
    "another file of the bundle": lambda c: c.update(postprocessing="%configs/train.json::postprocessing"),
    "another file inside an expression": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "$%other.json::keys"}),
    "code two references away": lambda c: (
        c.update(a="@b::0", b=[{"_target_": "subprocess.run", "args": ["touch", WITNESS]}]),
        _post(c, "@a"),
    )[0],
    "code behind a macro in a list": lambda c: (c.update(a=TOUCH), _post(c, "%a"))[0],
    "code nested in an argument": lambda c: _post(
        c, {"_target_": "Compose", "transforms": [{"_target_": "Identityd", "keys": {"x": [TOUCH]}}]}
    ),
    "a lambda that imports": lambda c: _post(
        c, {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda x: __import__('os').system('touch {WITNESS}')"}
    ),
    "a lambda whose default imports": lambda c: _post(
        c, {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda x, y=__import__('os').system('touch {WITNESS}'): x"}
    ),
    "a lambda that climbs": lambda c: _post(
        c, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.__class__.__base__.__subclasses__()"}
    ),
    "a lambda that calls its argument": lambda c: _post(c, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x()"}),
    "a lambda that saves": lambda c: _post(
        c, {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda x: torch.save(x, '{WITNESS}')"}
    ),
    "a lambda that writes by numpy": lambda c: _post(
        c, {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda x: x.cpu().numpy().tofile('{WITNESS}')"}
    ),
    "a callable after the inverse": lambda c: _post(
        c, {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "post_func": "$print"}
    ),
    "a merger looked up by name": lambda c: c.update(inferer={"_target_": "PatchInferer", "merger_cls": "antigravity.x"}),
    "a writer under another spelling": lambda c: c.update(
        preprocessing={"_target_": "monai.transforms.io.array.SaveImage", "writer": "antigravity.x"},
        postprocessing={"_target_": "monai.transforms.utils_create_transform_ims.download_and_extract"},
    ),
    "a list that fills memory": lambda c: _post(c, {"_target_": "EnsureTyped", "keys": "$['pred'] * 999999999"}),
}


@pytest.fixture
def own_way(bundle: Path) -> Callable[[Edit], Path]:
    """The tiny bundle, changed, to be run by its own postprocessing."""
    rules = bundle / "pipeline.toml"
    kept = rules.read_text().split("[intensities]")[0].replace('"chest"', '"bundle"')
    rules.write_text(kept + '[[segments]]\nlabel = "Lung"\nchannel = 1\n')

    def change(edit: Edit) -> Path:
        path = bundle / "configs" / "inference.json"
        config = json.loads(path.read_text())
        edit(config)
        path.write_text(json.dumps(config))
        return bundle

    return change


def test_the_bundle_that_is_attacked_runs_when_it_is_left_alone(own_way: Callable[[Edit], Path]) -> None:
    assert load_pipeline(own_way(lambda _: None), device="cpu").sidecar.postprocess == "bundle"


@pytest.mark.parametrize("name", OWN_WAY_ATTACKS)
def test_postprocessing_of_a_bundle_that_is_not_trusted_runs_no_code(
    name: str, own_way: Callable[[Edit], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = own_way(OWN_WAY_ATTACKS[name])
    with pytest.raises(PipelineError) as raised:
        load_pipeline(folder, device="cpu")
    assert "not trusted" in str(raised.value)
    assert not Path(WITNESS).exists()
    assert "antigravity" not in sys.modules
    assert [one for one in check_pipeline(folder) if one.level == "error"]


@pytest.mark.parametrize(
    "target", ["SaveImaged", "SaveImageD", "monai.transforms.SaveImageDict", "monai.transforms.io.array.SaveImage"]
)
@pytest.mark.parametrize("place", ["element", "reference", "whole"])
def test_saving_is_left_out_wherever_it_stands(
    target: str, place: str, own_way: Callable[[Edit], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saver = {"_target_": target, "keys": "pred", "output_dir": str(tmp_path / WITNESS), "writer": "antigravity.x"}

    def save(config: dict[str, Any]) -> None:
        if place == "whole":
            config["postprocessing"] = saver
        else:
            config["saver"] = saver
            _post(config, saver if place == "element" else "@saver")

    pipeline = load_pipeline(own_way(save), device="cpu")
    assert "SaveImage" not in " ".join(type(step).__name__ for step in pipeline._bundle.postprocessing)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "expression",
    [
        "lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, 0))",
        "lambda x: (x > 0.5).float()",
        "lambda x: x[1:2].to(torch.uint8)",
        "lambda x: torch.argmax(x, dim=0, keepdim=True)",
        "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "@bundle_root + '/eval'",
        "@network_def.to(@device)",
        "[min(16, len(@roi)), 32] * 3",
        "-1 if @roi is None else @roi[0]",
    ],
)
def test_what_honest_bundles_write_is_allowed(expression: str) -> None:
    assert list(objections(expression)) == []


@pytest.mark.parametrize(
    "expression",
    [
        "torch.load('x.pt')",
        "torch.hub.load('a/b', 'c')",
        "torch.utils",
        "monai",
        "np.load('x', allow_pickle=True)",
        "open('x')",
        "getattr(@a, 'b')",
        "@a.__class__",
        "@a.cpu().numpy().tobytes()",
        "@a.apply(@b)",
        "@a.load_state_dict({})",
        "lambda *x: x",
        "lambda **x: x",
        "lambda x, /: x",
        "lambda x: lambda y: x(y)",
        "lambda len: len(1)",
        "lambda torch: torch.where(1)",
        "max(*@a)",
        "max(**@a)",
        "f'{@a}'",
        "'{0.__class__}'.format(@a)",
        "[0] * 100000000",
        "'a' * 100000",
        "(0,) * (1000000 + 1)",
        "10 ** 10",
        "9999999999",
        "1 << 40",
        "a @ b",
        "(yield)",
        "await x",
        "x for x in y",
        "@#x + 1",
        "(" * 500 + "1" + ")" * 500,
        "-" * 200 + "1",
        "'x' if '@a' else 1",
        "1; import os",
        "1\nimport os",
    ],
)
def test_what_no_honest_bundle_needs_is_refused(expression: str) -> None:
    assert list(objections(expression))


def test_yaml_is_read_without_objects_aliases_and_keys_that_stand_twice(tmp_path: Path) -> None:
    path = tmp_path / "inference.yaml"
    for text in (
        f"a: !!python/object/apply:os.system ['touch {tmp_path / WITNESS}']",
        "a: &x [1, 1]\nb: [*x, *x]",
        "a: 1\na: 2",
        "- a list",
        "a: [" + "[" * 1500,
    ):
        path.write_text(text)
        with pytest.raises(PipelineError):
            read_config(path)
    assert not (tmp_path / WITNESS).exists()


def test_json_that_is_nested_beyond_reason_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "inference.json"
    path.write_text('{"postprocessing": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(PipelineError):
        read_config(path)


def test_only_what_the_own_way_reaches_is_kept() -> None:
    config = {
        "preprocessing": [{"_target_": "LoadImaged", "keys": "@key", "reader": "@evil"}],
        "key": "image",
        "evil": "$__import__('os')",
        "evaluator": {"_target_": "os.system"},
    }
    examined = examine(from_memory(config), OWN_WAY_KEYS)
    assert examined.violations == ()
    assert set(examined.config) == {"preprocessing", "key"}
