"""A bundle as it comes from the Model Zoo: added to a node without any code, then from DICOM files to DICOM results."""

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicomnode.engines.digest import bundle_digest
from tests.cli.conftest import command, type_command  # noqa: F401 - a fixture
from tests.engines.series import write_radiograph, write_series
from tests.engines.test_other_tasks import SOFTMAX, density, mean_of
from tests.engines.test_own_way import as_values, depth_mm, oblique_affine
from tests.engines.test_variants import BRATS, brats_config, nested, slices_config
from tests.engines.zoo import convolution, ct_segmentation, retinanet, thresholds, write_bundle

AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)


def described(channels: dict[str, str], modality: str = "CT", **changed: Any) -> dict[str, Any]:
    """metadata.json as the Model Zoo writes it."""
    given = {
        "type": "image",
        "modality": modality,
        "num_channels": 1,
        "spatial_shape": [48, 48, 48],
        "channel_def": {"0": "image"},
    }
    made = {"type": "image", "format": "segmentation", "num_channels": len(channels), "channel_def": channels}
    return {
        "version": "0.5.3",
        "name": "Spleen CT segmentation",
        "authors": "MONAI team",
        "intended_use": "An example. Not for clinical use.",
        "eval_metrics": {"mean_dice": 0.961},
        "network_data_format": {"inputs": {"image": {**given, **changed}}, "outputs": {"pred": made}},
    }


@pytest.fixture
def node(command: type_command, tmp_path: Path) -> Path:  # noqa: F811
    """The settings of a new node."""
    answer = command("init", tmp_path / "site", "--json")
    assert answer.code == 0, answer.err
    return Path(answer.document["config"])


@pytest.fixture
def zipped_bundle(tmp_path: Path) -> Path:
    """spleen_ct_segmentation_v0.5.3.zip, which knows nothing of this node."""
    folder = write_bundle(
        tmp_path / "zoo" / "spleen_ct_segmentation",
        ct_segmentation(),
        None,
        metadata=described({"0": "background", "1": "spleen"}),
        weigh=thresholds(0.5),
    )
    return Path(shutil.make_archive(f"{folder}_v0.5.3", "zip", folder.parent, folder.name))


@pytest.fixture
def served(zipped_bundle: Path) -> Iterator[str]:
    """The ZIP's address on a web server of this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(zipped_bundle.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{zipped_bundle.name}"
        server.shutdown()


def inferred(command: type_command, node: Path, series: Path, pipeline: str, out: Path) -> tuple[dict[str, Any], list[Any]]:  # noqa: F811
    """The one run's record and its objects."""
    answer = command("infer", series, "--pipeline", pipeline, "--out", out, "--json", "--config", node)
    (run,) = answer.document["runs"]
    return run, [pydicom.dcmread(one["path"]) for one in run["objects"]]


def instances_of(series: Path) -> list[str]:
    """SOP Instance UIDs in the order of the slices."""
    return [str(pydicom.dcmread(path).SOPInstanceUID) for path in sorted(series.iterdir())]


def labels_of(run: dict[str, Any], series: Path) -> Any:
    """The segmentation's label map, (slice, row, column), found by the instances that its frames name."""
    segmentation = hd.seg.segread(run["objects"][0]["path"])
    return segmentation.get_pixels_by_source_instance(instances_of(series), combine_segments=True)


def test_a_zoo_bundle_is_added_by_its_address_and_its_segmentation_lies_on_the_source(
    command: type_command,  # noqa: F811
    node: Path,
    zipped_bundle: Path,
    served: str,
    tmp_path: Path,
) -> None:
    digest = sha256(zipped_bundle.read_bytes()).hexdigest()
    assert command("pipelines", "add", served, "--config", node).code == 2  # plain http without a SHA-256
    assert command("pipelines", "add", served, "--sha256", "0" * 64, "--config", node).code == 2
    added = command("pipelines", "add", served, "--sha256", digest, "--json", "--config", node)
    assert added.code == 0, added.err
    assert added.document["name"] == "spleen_ct_segmentation"
    assert added.document["drafted"] is True
    listed = command("pipelines", "list", "--json", "--config", node).document["pipelines"]
    (mine,) = [one for one in listed if one["name"] == "spleen_ct_segmentation"]
    assert (mine["provenance"]["source"], mine["provenance"]["sha256"]) == (served, digest)
    assert mine["metrics"] == {"mean_dice": 0.961}
    assert mine["trusted"] is False
    series = write_series(tmp_path / "ct", as_values(DEPTH), AFFINE)
    run, objects = inferred(command, node, series, "spleen_ct_segmentation", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert [one.Modality for one in objects] == ["SEG", "SR", "OT"]
    assert objects[0].SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    labels = labels_of(run, series)
    assert not labels[DEPTH < -0.6].any()
    assert labels[DEPTH > 0.6].all()


def test_a_detectors_boxes_become_measured_findings_of_a_report(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    folder = retinanet(tmp_path / "nodules")
    refused = command("pipelines", "add", folder, "--config", node)
    assert refused.code == 1
    assert "scripts" in refused.error[0]
    text = node.read_text()
    node.write_text(text.replace('# trusted = ["…"]', f'trusted = ["{bundle_digest(folder)}"]'))
    assert node.read_text() != text
    added = command("pipelines", "add", folder, "--json", "--config", node)
    assert added.code == 0, added.err
    assert added.document["trusted"] is True
    series = write_series(tmp_path / "ct", as_values(DEPTH), AFFINE)
    run, objects = inferred(command, node, series, "nodules", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert {one.Modality for one in objects} == {"SR", "OT"}  # no outline, so no SEG
    assert run["findings"]["lesions"]
    assert "boxes" in " ".join(run["findings"]["warnings"])
    said = [str(element.value) for element in objects[0].iterall() if element.keyword == "TextValue"]
    assert any(run["findings"]["lesions"][0]["label"] in text for text in said)


def test_a_mammogram_is_classified_to_a_report_and_a_page(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    described_as = described({"0": "Fatty", "1": "Dense"}, "MG", num_channels=3, spatial_shape=[24, 24], channel_def={})
    described_as["network_data_format"]["outputs"]["pred"] |= {"type": "probabilities", "format": "classes"}
    folder = write_bundle(tmp_path / "density", density(SOFTMAX), None, metadata=described_as, weigh=mean_of)
    added = command("pipelines", "add", folder, "--json", "--config", node)
    assert added.code == 0, added.err
    series = write_radiograph(tmp_path / "mg", np.full((64, 48), 220))
    run, objects = inferred(command, node, series, "density", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert [one.Modality for one in objects] == ["SR", "OT"]
    (statement,) = run["findings"]["classifications"]
    assert statement["value"] == "Dense"
    assert "Dense" in str(objects[0])


def test_a_network_over_slices_segments_an_mr(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    folder = write_bundle(
        tmp_path / "short_axis",
        slices_config(),
        None,
        metadata=described({"0": "background", "1": "left ventricle"}, "MRI", spatial_shape=[48, 48]),
        weigh=thresholds(0.5),
    )
    assert command("pipelines", "add", folder, "--config", node).code == 0
    series = write_series(tmp_path / "mr", as_values(DEPTH), AFFINE, "MR")
    run, objects = inferred(command, node, series, "short_axis", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert [one.Modality for one in objects] == ["SEG", "SR", "OT"]
    labels = labels_of(run, series)
    assert not labels[DEPTH < -0.6].any()
    assert labels[DEPTH > 0.6].all()


def test_segments_within_each_other_all_reach_the_segmentation(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    config = brats_config()
    config["network_def"] = convolution(2)
    config["preprocessing"]["transforms"][2] = {"_target_": "ScaleIntensityRanged", "keys": "image"} | {
        "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1
    }  # fmt: skip

    def nested_limits(network: Any) -> None:
        network.weight.fill_(100.0)
        network.bias[0], network.bias[1] = -50.0, -80.0  # from 50 on, and from 80 on: 3 mm deeper

    metadata = described({"0": "liver", "1": "liver tumor"})
    folder = write_bundle(tmp_path / "tumour", config, None, metadata=metadata, weigh=nested_limits)
    assert command("pipelines", "add", folder, "--config", node).code == 0
    series = write_series(tmp_path / "ct", as_values(DEPTH), AFFINE)
    run, objects = inferred(command, node, series, "tumour", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert objects[0].SegmentsOverlap == "YES"
    segmentation = hd.seg.segread(run["objects"][0]["path"])
    both = segmentation.get_pixels_by_source_instance(instances_of(series), combine_segments=False)
    for segment, deep in ((0, 0), (1, 3)):
        assert not both[..., segment][deep - 0.1 > DEPTH].any()
        assert both[..., segment][deep + 0.1 < DEPTH].all()


def test_a_segmented_mammogram_is_a_segmentation_of_its_pixels(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    config = ct_segmentation(network_def=convolution(2, dims=2), inferer={"_target_": "SimpleInferer"})
    del config["preprocessing"]["transforms"][2:4]  # a projection has no orientation in the patient, and no spacing there
    rows, columns = np.mgrid[:64, :48]
    inside = (rows > 40) & (columns < 15)
    metadata = described({"0": "background", "1": "breast"}, "MG", spatial_shape=[64, 48])
    folder = write_bundle(tmp_path / "breast", config, None, metadata=metadata, weigh=thresholds(0.5))
    added = command("pipelines", "add", folder, "--config", node)
    assert added.code == 0, added.err
    series = write_radiograph(tmp_path / "mg", inside * 100)
    run, objects = inferred(command, node, series, "breast", tmp_path / "out")
    assert run["outcome"] == "done", run
    assert objects[0].Modality == "SEG"
    assert np.array_equal(labels_of(run, series)[0] == 1, inside)


def test_a_model_of_four_series_says_which_it_misses(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    folder = write_bundle(tmp_path / "brats", brats_config(), BRATS, modality="MR", weigh=nested)
    assert command("pipelines", "add", folder, "--config", node).code == 0
    series = write_series(tmp_path / "mr", as_values(DEPTH), AFFINE, "MR")
    run, objects = inferred(command, node, series, "brats", tmp_path / "out")
    assert (run["outcome"], run["code"]) == ("refused", "no_eligible_series")
    assert "flair" in run["reason"]
    assert [one.Modality for one in objects] == ["SR", "OT"]  # "AI not run" is said


def test_what_metadata_leave_open_is_asked_for_or_named(
    command: type_command,  # noqa: F811
    node: Path,
    tmp_path: Path,
) -> None:
    metadata = described({}, modality="none")
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    folder = write_bundle(tmp_path / "silent", ct_segmentation(), None, metadata=metadata, weigh=thresholds(0.5))
    refused = command("pipelines", "add", folder, "--config", node)
    assert refused.code == 1
    assert "--modality" in refused.error[1]
    added = command("pipelines", "add", folder, "--modality", "CT", "--json", "--config", node)
    assert added.code == 0, added.err
    assert any("channel_def" in doubt for doubt in added.document["doubts"])
    written = (Path(added.document["folder"]) / "pipeline.toml").read_text()
    assert 'label = "Channel 1"' in written
    checked = command("pipelines", "check", added.document["folder"], "--json", "--config", node).document
    assert checked["ok"] is True
    assert any("99DICOMNODE" in json.dumps(one) for one in checked["findings"])
