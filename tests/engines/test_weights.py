"""Networks and weights in every format, and what each needs to be trusted."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Findings
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.engines.digest import bundle_digest
from tests.engines.conftest import as_volume
from tests.engines.test_own_way import ONE, as_values, depth_mm, near, oblique_affine
from tests.engines.zoo import ct_segmentation, thresholds, write_bundle

AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)


def network() -> torch.nn.Module:
    made = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        thresholds(0.5)(made)
    return made.eval()


def with_file(folder: Path, name: str) -> Path:
    """A bundle whose network is to be brought by models/NAME."""
    config = ct_segmentation()
    del config["network_def"]
    return write_bundle(folder, config, f'{ONE}[bundle]\nweights = "models/{name}"\n')


def segmented(folder: Path, *, trusted: bool = True) -> None:
    digests = frozenset({bundle_digest(folder)} if trusted else ())
    found = load_pipeline(folder, device="cpu", trusted_digests=digests).run(as_volume(as_values(DEPTH), AFFINE))
    assert isinstance(found, Findings)
    near(found.label_maps[0].labels == 1, DEPTH, 0.6)


def refused_unread(folder: Path) -> None:
    with pytest.raises(PipelineError, match="program"):
        load_pipeline(folder, device="cpu")
    assert any("program" in one.what for one in check_pipeline(folder) if one.level == "error")
    trusted = check_pipeline(folder, trusted_digests=frozenset({bundle_digest(folder)}))
    assert not [one for one in trusted if one.level == "error"]


@pytest.mark.filterwarnings("ignore")
def test_torchscript_runs_where_its_digest_is_trusted_and_is_unread_elsewhere(tmp_path: Path) -> None:
    folder = with_file(tmp_path / "scripted", "model.ts")
    torch.jit.save(torch.jit.script(network()), folder / "models" / "model.ts")
    refused_unread(folder)
    segmented(folder)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_runs_where_its_digest_is_trusted_and_is_unread_elsewhere(tmp_path: Path) -> None:
    folder = with_file(tmp_path / "exported", "model.pt2")
    any_size = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.AUTO)
    program = torch.export.export(network(), (torch.zeros(2, 1, 20, 24, 28),), dynamic_shapes=(any_size,))
    torch.export.save(program, folder / "models" / "model.pt2")
    refused_unread(folder)
    segmented(folder)


@pytest.mark.filterwarnings("ignore")
def test_a_program_that_cannot_be_read_is_an_error_of_the_pipeline(tmp_path: Path) -> None:
    for name in ("model.ts", "model.pt2"):
        folder = with_file(tmp_path / name.replace(".", "_"), name)
        (folder / "models" / name).write_bytes(b"no archive at all")
        digests = frozenset({bundle_digest(folder)})
        with pytest.raises(PipelineError, match="cannot be read"):
            load_pipeline(folder, device="cpu", trusted_digests=digests)


def test_a_checkpoint_of_several_devices_loses_its_prefix(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "parallel", ct_segmentation(), f'{ONE}[bundle]\nweights = "models/model.pt"\n')
    state = {f"module.{name}": value for name, value in network().state_dict().items()}
    torch.save({"state_dict": state, "epoch": 7}, folder / "models" / "model.pt")
    segmented(folder, trusted=False)


# --- ONNX, written by hand: onnxruntime reads it, nothing here would write it


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: varint or length-delimited."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Seven bits a byte, least first."""
    return bytes(_groups(value))


def _groups(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, 1) + field(8, name) + field(9, struct.pack(f"<{values.size}f", *values.ravel()))


def described(name: str, axes: tuple[str, ...]) -> bytes:
    shape = b"".join(field(1, field(2, axis)) for axis in axes)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def onnx_graph(external: bytes = b"") -> bytes:
    """The 1 × 1 convolution of `network`."""
    plain = network()
    node = field(1, "x") + field(1, "w") + field(1, "b") + field(2, "y") + field(4, "Conv")
    weights = [tensor(name, getattr(plain, key).detach().numpy()) for name, key in (("w", "weight"), ("b", "bias"))]
    graph = field(1, node) + field(2, "g") + b"".join(field(5, one + external) for one in weights)
    graph += field(11, described("x", ("n", "one", "i", "j", "k"))) + field(12, described("y", ("n", "two", "i", "j", "k")))
    return field(1, 8) + field(8, field(2, 13)) + field(7, graph)


def test_an_onnx_graph_needs_no_trust(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason='onnxruntime is not installed — pip install "dicomnode-ai[onnx]"')
    folder = with_file(tmp_path / "graph", "model.onnx")
    (folder / "models" / "model.onnx").write_bytes(onnx_graph())
    segmented(folder, trusted=False)


def test_an_onnx_graph_that_names_other_files_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason='onnxruntime is not installed — pip install "dicomnode-ai[onnx]"')
    folder = with_file(tmp_path / "graph", "model.onnx")
    (folder / "models" / "model.onnx").write_bytes(onnx_graph(field(13, field(1, "location") + field(2, "/etc/passwd"))))
    with pytest.raises(PipelineError, match="other files"):
        load_pipeline(folder, device="cpu")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    folder = with_file(tmp_path / "graph", "model.onnx")
    (folder / "models" / "model.onnx").write_bytes(onnx_graph())
    with pytest.raises(PipelineError, match="onnxruntime") as raised:
        load_pipeline(folder, device="cpu")
    assert "dicomnode-ai[onnx]" in raised.value.remedy
